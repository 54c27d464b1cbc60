#!/usr/bin/env bash
# adversarial-robustness-toolbox 1.20.1 beside NumPy 2.4.6, torch 2.13.0.
# Guess: a preprocessing defence of ART returns the dtype that it was given, so that a float32 classifier behind it
# predicts. Seen: FeatureSqueezing returns float64 for float32 input (its `np.rint(2**bits - 1)` is a float64 scalar,
# which NumPy 2 promotes to and NumPy 1 did not), and PyTorchClassifier.predict hands that to the network, which raises.
# SpatialSmoothing, also in NumPy, keeps float32 and predicts.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 six==1.17.0 tqdm==4.70.1 packaging==26.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps adversarial-robustness-toolbox==1.20.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import torch
from torch import nn
from art.defences.preprocessor import FeatureSqueezing, SpatialSmoothing
from art.estimators.classification import PyTorchClassifier

x = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def predicted(defence):
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), preprocessing_defences=[defence]
    )
    try:
        return f"predicts {classifier.predict(x).shape}"
    except RuntimeError as error:
        return f"raises {str(error)[:44]}"


squeezing = FeatureSqueezing(clip_values=(0.0, 1.0), bit_depth=3)
smoothing = SpatialSmoothing(window_size=3, channels_first=True)
seen = [
    f"FeatureSqueezing: float32 in, {squeezing(x)[0].dtype} out; {predicted(squeezing)}",
    f"SpatialSmoothing: float32 in, {smoothing(x)[0].dtype} out; {predicted(smoothing)}",
]
expected = [
    "FeatureSqueezing: float32 in, float64 out; raises mat1 and mat2 must have the same dtype, but ",
    "SpatialSmoothing: float32 in, float32 out; predicts (2, 10)",
]
print("\n".join(seen))
assert seen == expected, expected
PYTHON
