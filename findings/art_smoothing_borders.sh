#!/usr/bin/env bash
# adversarial-robustness-toolbox 1.20.1 beside torch 2.13.0, SciPy 1.17.1, kornia 0.9.0.
# Guess: SpatialSmoothingPyTorch is SpatialSmoothing in torch, so that for an odd window the same images come out.
# Seen: at every pixel of the border another number may come out, inside none. Both pad by "reflect", which in SciPy
# repeats the pixel at the edge and in torch leaves it out. Of an image of 8 x 8 that is nearly half of all pixels, of
# one of 32 x 32 an eighth; with a window of 5 the border is two pixels wide.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 six==1.17.0 tqdm==4.70.1 packaging==26.3
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps adversarial-robustness-toolbox==1.20.1 kornia==0.9.0 kornia_rs==0.2.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from art.defences.preprocessor import SpatialSmoothing, SpatialSmoothingPyTorch

x = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
seen = []
for window in (3, 5):
    numpy, _ = SpatialSmoothing(window_size=window, channels_first=True)(x.copy())
    torch, _ = SpatialSmoothingPyTorch(window_size=window, channels_first=True, device_type="cpu")(x.copy())
    differs = np.abs(numpy - torch)[:, 0] > 1e-6
    inside = differs[:, window // 2 : -(window // 2), window // 2 : -(window // 2)]
    seen.append(f"window {window}: {differs.mean():.0%} of the pixels differ, inside the border {inside.mean():.0%}")
expected = [
    "window 3: 42% of the pixels differ, inside the border 0%",
    "window 5: 57% of the pixels differ, inside the border 0%",
]
print("\n".join(seen))
assert seen == expected, expected
PYTHON
