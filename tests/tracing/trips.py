"""Trips out of torch and back: numbers written down as bytes, text, files or other people's objects, one table.

Each changes 16 pixels in [0, 1] before a fixed linear layer reads them, as in `idioms.py`; `TRIPS` says text of the
line at which the gradient is cut. All of them keep the numbers, or a coarser version of them, so
that the identity leads on.
"""

import array
import base64
import csv
import ctypes
import io
import json
import pickle
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

# --- bytes ----------------------------------------------------------------------------------------------------------


def as_bytes(net, x):
    raw = (x.numpy(force=True) * 15).astype(np.uint8).tobytes()
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(x.shape).float() / 15


def bytes_of_each(net, x):
    rows = [(row * 7).round().to(torch.uint8).numpy().tobytes() for row in x.detach()]
    return torch.stack([torch.frombuffer(bytearray(r), dtype=torch.uint8) for r in rows]).float().div(7)


def compressed(net, x):
    raw = zlib.compress(x.mul(9).round().detach().numpy().tobytes())
    return torch.from_numpy(np.frombuffer(zlib.decompress(raw), np.float32).copy()).view_as(x) / 9


def in_base64(net, x):
    word = base64.b64encode(np.round(x.detach().numpy() * 8).astype("<i2"))
    return torch.tensor(np.frombuffer(base64.b64decode(word), "<i2") / 8, dtype=x.dtype).reshape(x.shape)


def as_structs(net, x):
    raw = struct.pack(f"{x.numel()}f", *x.mul(6).ceil().flatten().tolist())
    return torch.tensor(struct.unpack(f"{x.numel()}f", raw)).view(x.shape) / 6


def through_a_memoryview(net, x):
    view = memoryview(np.asarray(x.detach().mul(9).round()))
    return torch.tensor(np.array(view)) / 9


def as_a_ctypes_array(net, x):
    held = (ctypes.c_int * x.numel())(*(round(v * 10) for v in x.flatten().tolist()))
    return torch.tensor(np.ctypeslib.as_array(held)).reshape(x.shape) / 10


def in_an_array_module(net, x):
    held = array.array("d", x.detach().flatten())
    return torch.tensor([round(v, 1) for v in held]).reshape_as(x)


def as_half_words(net, x):
    words = x.detach().half().numpy().view(np.uint16) & 0xFF00
    return torch.from_numpy(words.view(np.float16).astype(np.float32))


# --- text -----------------------------------------------------------------------------------------------------------


def written_out(net, x):
    lines = [" ".join(f"{v:.1f}" for v in row) for row in x.tolist()]
    return torch.tensor([[float(word) for word in line.split()] for line in lines])


def as_json(net, x):
    return torch.tensor(json.loads(json.dumps([[round(v, 1) for v in row] for row in x.tolist()])))


def printed(net, x):
    words = np.array2string(x.detach().numpy().round(1), separator=",", threshold=10**6)
    return torch.tensor(eval(words), dtype=x.dtype)


def as_csv(net, x):
    sheet = io.StringIO()
    csv.writer(sheet).writerows([[f"{v:.1f}" for v in row] for row in x.detach().numpy()])
    rows = csv.reader(io.StringIO(sheet.getvalue()))
    return torch.tensor([[float(cell) for cell in row] for row in rows])


def item_by_item(net, x):
    out = torch.zeros_like(x)
    for n in range(len(x)):
        for m in range(x.shape[1]):
            out[n, m] = round(x[n, m].item() * 5) / 5
    return out


# --- objects and files ----------------------------------------------------------------------------------------------


def pickled(net, x):
    return pickle.loads(pickle.dumps(x.detach().mul(5).round().div(5)))


def pickled_whole(net, x):
    return pickle.loads(pickle.dumps(net.inner(x)))


def saved_and_loaded(net, x):
    file = io.BytesIO()
    torch.save((x * 5).round() / 5, file)
    file.seek(0)
    return torch.load(file).detach()


def saved_by_numpy(net, x):
    file = io.BytesIO()
    np.save(file, np.floor(x.numpy(force=True) * 6) / 6)
    file.seek(0)
    return torch.as_tensor(np.load(file))


def on_disk(net, x):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.bin"
        (x * 6).round().detach().numpy().tofile(path)
        return torch.from_file(str(path), size=x.numel()).clone().reshape(x.shape) / 6


def over_dlpack(net, x):
    return torch.from_dlpack(np.from_dlpack(x.detach().mul(4).round())) / 4


def as_pictures(net, x):
    out = []
    for row in x:
        picture = Image.fromarray((row.detach().reshape(4, 4) * 12).round().to(torch.uint8).numpy(), mode="L")
        out.append(torch.tensor(list(picture.getdata())) / 12)
    return torch.stack(out)


def put_elsewhere(net, x):
    held = torch.empty(0)
    with torch.no_grad():
        held.set_(x.mul(6).round().div(6).contiguous())
    return held


def set_from_storage(net, x):
    made = x.mul(6).round().div(6).detach()
    return torch.empty(0).set_(made.untyped_storage(), 0, made.shape)


def copied_into_storage(net, x):
    held = torch.zeros_like(x)
    held.untyped_storage().copy_((x * 6).round().div(6).detach().untyped_storage())
    return held


def viewed_by_numpy(net, x):
    held = torch.zeros_like(x)
    np.copyto(held.numpy(), np.round(x.detach().numpy() * 5) / 5)
    return held


TRIPS: dict[str, tuple[Callable[..., Any], str]] = {
    "tobytes and frombuffer": (as_bytes, "raw = (x.numpy(force=True)"),
    "bytes, image by image": (bytes_of_each, "rows = [(row * 7).round()"),
    "zlib": (compressed, "raw = zlib.compress"),
    "base64": (in_base64, "word = base64.b64encode"),
    "struct.pack": (as_structs, "raw = struct.pack"),
    "a memoryview": (through_a_memoryview, "view = memoryview("),
    "a ctypes array": (as_a_ctypes_array, "held = (ctypes.c_int"),
    "array.array": (in_an_array_module, 'array.array("d"'),
    "bits of float16 masked": (as_half_words, "words = x.detach()"),
    "a format string": (written_out, 'f"{v:.1f}" for v in row'),
    "JSON": (as_json, "json.loads(json.dumps("),
    "array2string and eval": (printed, "words = np.array2string"),
    "CSV": (as_csv, 'f"{v:.1f}" for v in row] for row in x.detach()'),
    "item by item": (item_by_item, "x[n, m].item()"),
    "pickle": (pickled, "pickle.loads(pickle.dumps("),
    "pickle, with a gradient wanted": (pickled_whole, "pickle.loads(pickle.dumps(net"),
    "torch.save and load": (saved_and_loaded, "return torch.load(file).detach()"),
    "numpy.save and load": (saved_by_numpy, "np.save(file"),
    "a file on disk": (on_disk, "(x * 6).round().detach().numpy().tofile"),
    "DLPack": (over_dlpack, "np.from_dlpack(x.detach()"),
    "PIL's getdata": (as_pictures, "picture = Image.fromarray"),
    "set_ on another tensor": (put_elsewhere, "with torch.no_grad():"),
    "set_ from a storage": (set_from_storage, "made = x.mul(6)"),
    "a storage's copy_": (copied_into_storage, "held.untyped_storage().copy_"),
    "NumPy writing into a tensor's memory": (viewed_by_numpy, "np.copyto(held.numpy()"),
}
