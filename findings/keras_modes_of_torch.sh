#!/usr/bin/env bash
# keras 3.15.1 on its torch backend, torch 2.13.0.
# Guess: a Keras model there is a torch module, so that `train()` and `eval()` switch its dropout, and `training` says
# which mode it is in.
# Seen: `training` is True from the start and follows `train()` and `eval()`, and the layers do not look at it. Called
# without the argument `training`, dropout is off after `train()`; with `training=True` it is on after `eval()`.
# So torch's own loop trains without dropout, and `training` of a module says nothing about its answers.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 keras==3.15.1
KERAS_BACKEND=torch "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import keras
import torch

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.layers.Input((16,)), keras.layers.Dropout(0.5), keras.layers.Dense(4)])
x = torch.rand(8, 16)
assert isinstance(model, torch.nn.Module)


def dropout(**arguments):
    """Whether two calls differ."""
    return not torch.equal(model(x, **arguments), model(x, **arguments))


seen = [("as built", model.training, dropout())]
model.train()
seen.append(("train()", model.training, dropout()))
model.eval()
seen += [("eval()", model.training, dropout()), ("eval(), training=True", model.training, dropout(training=True))]
for how, training, drops in seen:
    print(f"{how}: .training is {training}, dropout is {'on' if drops else 'off'}")
expected = [
    ("as built", True, False),
    ("train()", True, False),
    ("eval()", False, False),
    ("eval(), training=True", False, True),
]
assert seen == expected, expected
PYTHON
