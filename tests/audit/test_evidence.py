import dataclasses

import pytest
import torch

from unmask.audit.evidence import FILE, Evidence, hash_images, read_evidence, write_evidence
from unmask.audit.records import ThreatRecord
from unmask.errors import UnusableInput


def evidence() -> Evidence:
    x = torch.rand(3, 2, 4, 4)
    return Evidence(
        x_adv=x,
        index=torch.tensor([5, 0, 7]),
        label=torch.tensor([1, 2, 3]),
        prediction=torch.tensor([2, 2, 0]),
        failure_rate=torch.tensor([1.0, 0.35, 0.1], dtype=torch.float64),
        originals=hash_images(x),
        threat=ThreatRecord(norm="l2", epsilon=8 / 255),
        data="mine.npz",
        split="",
        target="net.py:f",
        checkpoint_hash="ab" * 32,
        passes=4,
        draws=20,
    )


def test_what_is_written_is_read(tmp_path):
    written = evidence()
    path = write_evidence(tmp_path / "new", written)
    assert path == tmp_path / "new" / FILE
    read = read_evidence(tmp_path / "new")
    for field in dataclasses.fields(Evidence):
        before, after = getattr(written, field.name), getattr(read, field.name)
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after


def test_none_found_is_evidence_too(tmp_path):
    empty = {f: getattr(evidence(), f)[:0] for f in ("x_adv", "index", "label", "prediction", "failure_rate")}
    write_evidence(tmp_path, dataclasses.replace(evidence(), **empty))
    assert read_evidence(tmp_path).x_adv.shape == (0, 2, 4, 4)


def test_missing_and_damaged_files_get_one_line(tmp_path):
    with pytest.raises(UnusableInput, match=r"there is no .*evidence\.safetensors"):
        read_evidence(tmp_path)
    path = write_evidence(tmp_path, evidence())
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UnusableInput, match="damaged"):
        read_evidence(tmp_path)


def test_the_hash_is_of_the_pixels():
    x = torch.rand(2, 1, 3, 3)
    assert hash_images(x) == hash_images(x.clone(memory_format=torch.channels_last))
    assert hash_images(x) != hash_images(x.flip(0))
    assert hash_images(x) != hash_images(torch.nextafter(x, x + 1))
