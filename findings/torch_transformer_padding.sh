#!/usr/bin/env bash
# torch 2.13.0.
# Guess: a `nn.TransformerEncoder` in evaluation mode has one answer, whether or not a gradient is asked for.
# Seen: with padding at the end of the tokens it has two. Where nothing asks for a gradient, the padded tokens' outputs
# are zeros; where the input or a parameter does, they are not. A network that averages over its tokens is one function
# for its user and another for an attack, with other labels. `torch.backends.mha.set_fastpath_enabled(False)` makes
# them one.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
encoder = nn.TransformerEncoder(layer, 2).eval().requires_grad_(False)
head = nn.Linear(16, 10).requires_grad_(False)
tokens = torch.rand(32, 8, 16)
padding = torch.zeros(32, 8, dtype=torch.bool)
padding[:, 5:] = True
padding[0] = False


def answers(x):
    encoded = encoder(x, src_key_padding_mask=padding)
    return encoded.detach(), head(encoded.mean(1)).detach()


used, logits = answers(tokens)
attacked, other = answers(tokens.clone().requires_grad_())
print(f"padded outputs, largest: {used[1, 5:].abs().max():.2f} for a user, {attacked[1, 5:].abs().max():.2f} for an attack")
print(f"other tokens differ by {(used - attacked)[~padding].abs().max():.0e}")
print(f"logits differ by up to {(logits - other).abs().max():.2f}; labels of {int((logits.argmax(1) != other.argmax(1)).sum())} of 32")
assert used[1, 5:].abs().max() == 0 and attacked[1, 5:].abs().max() > 0.1
assert (used - attacked)[~padding].abs().max() < 1e-4 and (logits - other).abs().max() > 0.1
torch.backends.mha.set_fastpath_enabled(False)
assert torch.allclose(answers(tokens)[1], other, atol=1e-5)
PYTHON
