"""What a user writes for each kind of network and of data, how long an audit takes, and what it says.

    python benchmarks/ways_in.py networks
    python benchmarks/ways_in.py data

One network of digits is saved in every form, the same images in every form; each row is one `unmask audit` in a process
of its own (budget quick, 20 examples, linf 0.05); its processor seconds hold the import of torch. Rows whose library is
not installed are left out and named. "Lines" are what a user has to write in Python beside the command.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unmask.data import load

ARCHITECTURE = """\
from torch import nn


def Net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
"""
CALLABLE = """\
import torch
from net import Net


def network():
    net = Net()
    net.load_state_dict(torch.load("weights.pth", weights_only=True))
    return net.eval()
"""
TOOLBOX = {
    "art": """\
from art.estimators.classification import PyTorchClassifier
from torch import nn
from defence import network


def classifier():
    return PyTorchClassifier(network(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")
""",
    "foolbox": """\
from foolbox import PyTorchModel
from defence import network


def model():
    return PyTorchModel(network(), bounds=(0, 1), device="cpu")
""",
}


@dataclass(frozen=True)
class Row:
    """One way in.

    **Fields**
    - `name`: of the row; `target`, `data`: what is typed; `options`: more of it.
    - `make`: writes what the row needs into the working directory.
    - `code`: what a user has to write in Python.
    - `needs`: libraries.
    """

    name: str
    target: str = "defence.py:network"
    data: str = "digits"
    options: tuple[str, ...] = ()
    make: Callable[[nn.Module], None] = lambda net: None
    code: str = ""
    needs: tuple[str, ...] = ()


# --- networks -------------------------------------------------------------------------------------------------------


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    return net.state_dict()


def _safetensors(net: nn.Module) -> None:
    from safetensors.torch import save_file

    save_file(_state(net), "weights.safetensors")


def _lightning(net: nn.Module) -> None:
    state = {f"model.{name}": value for name, value in _state(net).items()}
    torch.save({"epoch": 3, "pytorch-lightning_version": "2.4.0", "state_dict": state}, "last.ckpt")


def _scripted(net: nn.Module) -> None:
    torch.jit.save(torch.jit.trace(net, torch.rand(2, 1, 8, 8)), "net.pt")


def _exported(net: nn.Module) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(net, (torch.rand(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, "net.pt2")


def _onnx(net: nn.Module) -> None:
    axes = {"x": {0: "batch"}, "logits": {0: "batch"}}
    names = {"input_names": ["x"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(net, (torch.rand(2, 1, 8, 8),), "net.onnx", dynamo=False, **names)


def _keras(net: nn.Module) -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    keras: Any = importlib.import_module("keras")

    dense = [(layer.weight, layer.bias) for layer in net.children() if isinstance(layer, nn.Linear)]
    model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten()])
    for n, (weight, _) in enumerate(dense):
        model.add(keras.layers.Dense(len(weight), activation="relu" if n == 0 else "softmax"))
    # Of one channel, the order of channels and pixels is the same in both layouts.
    model.set_weights([v.detach().numpy() for w, b in dense for v in (w.T, b)])
    model.save("net.keras")


def _transformers(net: nn.Module) -> None:
    transformers: Any = importlib.import_module("transformers")

    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=3,
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
        num_labels=10,
    )
    model = transformers.ResNetForImageClassification(config)
    train = load("digits", split="train")
    images = nn.functional.interpolate(train.x.repeat(1, 3, 1, 1), (32, 32), mode="bilinear", antialias=True)
    _fit(lambda x: model((x - 0.5) / 0.5).logits, model, images, train.y, 25)
    model.eval().save_pretrained("resnet")
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(
        "resnet"
    )
    np.savez("colour.npz", x=load("digits").x.repeat(1, 3, 1, 1).numpy(), y=load("digits").y.numpy())


def _timm(net: nn.Module) -> None:
    timm: Any = importlib.import_module("timm")

    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=1000)
    train = load("digits", split="train")
    images = nn.functional.interpolate(
        train.x[:400].repeat(1, 3, 1, 1), (32, 32), mode="bilinear", antialias=True
    )
    mean, std = (torch.tensor(model.default_cfg[name]).view(-1, 1, 1) for name in ("mean", "std"))
    _fit(lambda x: model((x - mean) / std), model, images, train.y[:400], 6)
    torch.save(model.eval().state_dict(), "resnet18.pth")
    np.savez("colour.npz", x=load("digits").x.repeat(1, 3, 1, 1).numpy(), y=load("digits").y.numpy())


def _fit(forward: Callable, model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(forward(x[part]), y[part]).backward()
            optimizer.step()


NETWORKS = [
    Row("`file.py:callable`", code=CALLABLE),
    Row("`package.module:callable`", "defence:network", code=CALLABLE),
    Row("state dict", "weights.pth", options=("--arch", "net.py:Net")),
    Row("safetensors", "weights.safetensors", options=("--arch", "net.py:Net"), make=_safetensors),
    Row("Lightning checkpoint", "last.ckpt", options=("--arch", "net.py:Net"), make=_lightning),
    Row("TorchScript", "net.pt", make=_scripted),
    Row("`torch.export`", "net.pt2", make=_exported),
    Row("ONNX", "net.onnx", make=_onnx, needs=("onnx",)),
    Row("Keras on torch", "net.keras", make=_keras, needs=("keras",)),
    Row("ART", "art:toolbox.py:classifier", code=TOOLBOX["art"], needs=("art",)),
    Row("Foolbox", "foolbox:toolbox.py:model", code=TOOLBOX["foolbox"], needs=("foolbox",)),
    Row("transformers (a small ResNet)", "hf:resnet", "colour.npz", make=_transformers, needs=("transformers",)),
    Row(
        "timm (ResNet-18 at 32 pixels)",
        "timm:resnet18@resnet18.pth",
        "colour.npz",
        ("--resize", "32", "--crop", "32"),
        make=_timm,
        needs=("timm",),
    ),
]  # fmt: skip


# --- data -----------------------------------------------------------------------------------------------------------


def _images() -> tuple[np.ndarray, np.ndarray]:
    """Digits of the test split as bytes `[500, 8, 8]`, and labels."""
    data = load("digits")
    return (255 * data.x[:, 0]).round().byte().numpy(), data.y.numpy()


def _files(folder: str) -> list[tuple[str, int]]:
    from PIL import Image

    found = []
    for n, (image, label) in enumerate(zip(*_images(), strict=True)):
        where = Path(folder, f"digit {label}")
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(where / f"{n}.png")
        found.append((f"{where.name}/{n}.png", int(label)))
    return found


def _pictures(net: nn.Module) -> None:
    _files("pictures")


def _table(net: nn.Module) -> None:
    rows = [f"pictures/{path},{label}" for path, label in _files("pictures")]
    Path("table.csv").write_text("\n".join(["path,label", *rows]) + "\n")


def _numbers(net: nn.Module) -> None:
    x, y = _images()
    header = [f"p{n}" for n in range(64)]
    rows = [",".join(map(str, [*image.flatten(), label])) for image, label in zip(x, y, strict=True)]
    Path("numbers.csv").write_text("\n".join([",".join([*header, "label"]), *rows]) + "\n")


def _hugging_face(net: nn.Module) -> None:
    import datasets
    from PIL import Image

    x, y = _images()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    set_ = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(i) for i in x], "label": y.tolist()}, features
    )
    set_.save_to_disk("saved")
    set_.to_parquet("rows.parquet")


def _arrays(net: nn.Module) -> None:
    from safetensors.numpy import save_file

    x, y = _images()
    floats = x.astype(np.float32) / 255
    np.savez("floats.npz", x=floats[:, None], y=y)
    np.savez("bytes.npz", images=x[..., None], labels=y)
    np.savez(
        "medical.npz", train_images=x[:9], train_labels=y[:9, None], test_images=x, test_labels=y[:, None]
    )
    np.save("test_x.npy", x)
    np.save("test_y.npy", y)
    save_file({"x": floats[:, None], "y": y}, "floats.safetensors")
    np.savez("vectors.npz", x=16 * floats.reshape(-1, 64), y=y)
    np.savez("signals.npz", x=16 * floats.reshape(-1, 2, 32) - 8, y=y)
    np.savez("volumes.npz", x=floats.reshape(-1, 1, 4, 4, 4), y=y)


UNITS = """\
from torch import nn
from defence import network


class Scaled(nn.Module):
    def __init__(self, scale, shift):
        super().__init__()
        self.net, self.scale, self.shift = network(), scale, shift

    def forward(self, x):
        return self.net(x * self.scale + self.shift)


def vectors():
    return Scaled(1 / 16, 0).eval()


def signals():
    return Scaled(1 / 16, 0.5).eval()


def bytes_():
    return Scaled(1 / 255, 0).eval()
"""

DATA = [
    Row("built in", data="digits"),
    Row("folder of pictures by class", data="pictures", make=_pictures),
    Row("table of files", data="table.csv", make=_table),
    Row("table of numbers", "units.py:bytes_", "numbers.csv", make=_numbers),
    Row("`save_to_disk`", data="saved", make=_hugging_face),
    Row("Parquet", data="rows.parquet", make=_hugging_face),
    Row("`.npz`, NCHW in [0, 1]", data="floats.npz", make=_arrays),
    Row("`.npz`, NHWC bytes", data="bytes.npz", make=_arrays),
    Row("MedMNIST's `.npz`", data="medical.npz", make=_arrays),
    Row("`.npy` pair", data="test_x.npy", make=_arrays),
    Row("`.safetensors`", data="floats.safetensors", make=_arrays),
    Row("vectors in any range", "units.py:vectors", "vectors.npz", make=_arrays),
    Row("signals, two channels", "units.py:signals", "signals.npz(kind=signals)", make=_arrays),
    Row("volumes", data="volumes.npz", make=_arrays),
]


# --- measuring ------------------------------------------------------------------------------------------------------


def trained() -> nn.Module:
    """The network of all rows."""
    torch.manual_seed(0)
    data = load("digits", split="train")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    _fit(net, net, data.x, data.y, 25)
    return net.eval()


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(row: Row, net: nn.Module) -> tuple[str, float, str]:
    """What is typed, processor seconds, and what the audit says."""
    for name, text in {"net.py": ARCHITECTURE, "defence.py": CALLABLE, "units.py": UNITS}.items():
        Path(name).write_text(text)
    if row.target.startswith(("art:", "foolbox:")):
        Path("toolbox.py").write_text(row.code)
    torch.save(net.state_dict(), "weights.pth")
    row.make(net)
    typed = [row.target, "--data", row.data, *row.options]
    fixed = ["--examples", "20", "--norm", "linf", "--epsilon", "0.05", "--budget", "quick", "--json"]
    began = _spent()
    command = [sys.executable, "-m", "unmask", "audit", *typed, *fixed, "--out", "audit"]
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds = _spent() - began
    if done.returncode not in (0, 3):
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return " ".join(typed), seconds, lines[-1]
    report = json.loads(done.stdout)
    shares = [100 * report[name] for name in ("clean_accuracy", "robust_accuracy")]
    masked = "".join(f"; {found['mechanism']}: {found['operation']}" for found in report["masking"])
    return " ".join(typed), seconds, f"{shares[0]:.0f} % clean, {shares[1]:.0f} % under attack{masked}"


def main() -> None:
    """Prints one of the two tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("networks", "data"))
    parser.add_argument("--only", help="rows whose name contains this")
    arguments = parser.parse_args()
    net, missing = trained(), []
    print("| kind | what is typed | lines of Python | processor s | result |\n|---|---|---|---|---|")
    for row in NETWORKS if arguments.table == "networks" else DATA:
        if arguments.only and arguments.only not in row.name:
            continue
        if lacking := [name for name in row.needs if importlib.util.find_spec(name) is None]:
            missing.append(f"{row.name} ({', '.join(lacking)})")
            continue
        home = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                typed, seconds, result = measured(row, net)
            finally:
                os.chdir(home)
        lines = len([line for line in row.code.splitlines() if line.strip()])
        print(f"| {row.name} | `{typed}` | {lines or '–'} | {seconds:.0f} | {result} |", flush=True)
    if missing:
        print(f"\nNot installed: {'; '.join(missing)}")


if __name__ == "__main__":
    main()
