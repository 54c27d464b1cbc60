"""The claim file: its schema, its text, its refusals, and what of it is checked before an audit."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from unmask.claim.checklist import check
from unmask.claim.claim import Claim, parse_claim, read_claim
from unmask.claim.numbers import parse_number
from unmask.claim.record import SECTIONS
from unmask.claim.stated import check_checkpoint, check_clean
from unmask.claim.toml import schema, to_toml
from unmask.data import Data
from unmask.errors import UnusableInput
from unmask.types import Outputs

LEAST = {"target": "a.py:f", "norm": "linf", "epsilon": "8/255"}
PUBLISHED = Path(__file__).parents[2] / "docs" / "claim.schema.json"


def test_the_published_schema_is_the_models():
    assert json.loads(PUBLISHED.read_text()) == schema()


def test_every_field_stands_in_one_section_with_a_comment_and_an_example():
    names = [name for section in SECTIONS.values() for name in section]
    assert sorted(names) == sorted(Claim.model_fields)
    for name, field in Claim.model_fields.items():
        assert field.description
        assert field.examples
        parse_claim({**LEAST, name: field.examples[0]}, "an example")


def test_what_is_written_is_read_back(tmp_path):
    values = {**LEAST, "claim": 0.45, "attack": ["mine.py:A"], "data": 'a "quoted" set', "box": [0.0, 1.0]}
    (tmp_path / "claim.toml").write_text(to_toml(values), encoding="utf-8")
    claim = read_claim(tmp_path / "claim.toml")
    assert claim.model_fields_set == set(values)
    assert claim == parse_claim(values, "")
    assert claim.epsilon == 8 / 255


def test_lines_that_are_commented_out_are_valid_too():
    text = to_toml(LEAST)
    stated = [line.removeprefix("# ") for line in text.splitlines() if " = " in line]
    assert len(stated) == len(Claim.model_fields)
    parse_claim(tomllib.loads("\n".join(stated)), "")


def test_files_beside_the_claim_are_found_from_elsewhere(tmp_path):
    for name in ("net.py", "mine.py", "set.npz"):
        (tmp_path / name).touch()
    values = {**LEAST, "target": "net.py:f", "attack": ["mine.py:A", "package.mine:B"], "data": "set.npz"}
    (tmp_path / "claim.toml").write_text(to_toml(values))
    claim = read_claim(tmp_path / "claim.toml")
    assert claim.target == f"{tmp_path}/net.py:f"
    assert claim.attack == [f"{tmp_path}/mine.py:A", "package.mine:B"]
    assert claim.data == f"{tmp_path}/set.npz"


def test_a_key_may_be_spelt_with_dashes_but_not_twice(tmp_path):
    file = tmp_path / "claim.toml"
    file.write_text(to_toml(LEAST) + "\nbatch-size = 3\n")
    assert read_claim(file).batch_size == 3
    file.write_text(to_toml(LEAST) + "\nbatch-size = 3\nbatch_size = 4\n")
    with pytest.raises(UnusableInput, match="twice"):
        read_claim(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epsilon": "wide"}, "epsilon of f: 'wide' is no number; give one such as 0.3 or 8/255"),
        ({"epsilon": -1}, "epsilon of f: -1.0 is no radius; give at least 0"),
        ({"epsilon": float("inf")}, "epsilon of f: inf is no radius"),
        ({"epsilon": True}, "epsilon of f: True is no radius"),
        ({"claim": 83}, "claim of f is 83; give a share between 0 and 1, for instance 0.45"),
        ({"clean_accuracy": float("nan")}, "clean_accuracy of f is nan; give a share"),
        ({"checkpoint_hash": "abc"}, "give the 64 hexadecimal digits that report.json"),
        ({"attack": "mine.py:A"}, 'it should be a valid list, for instance ["my_attack.py:Mine"]'),
        ({"passes": 0}, "passes of f is 0"),
        ({"targets": "nearest"}, "targets of f is 'nearest'"),
        ({"targets": -1}, "targets of f is -1"),
        ({"adaptive": "yes"}, "it should be a valid boolean"),
        ({"box": [0]}, "box of f is [0]"),
        ({"epsillon": 1}, "unknown key 'epsillon'; the keys are target, "),
    ],
)
def test_each_defect_is_one_line_with_the_way_out(change, told):
    with pytest.raises(UnusableInput) as raised:
        parse_claim({**LEAST, **change}, "f")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "8/0", "1/2/3", "nan", "-inf"])
def test_no_numbers(text):
    with pytest.raises(ValueError, match="is no number"):
        parse_number(text)


# what is checked before an audit


def hundred(right: int, rejected: int | None, examples: int = 100):
    """A network right on the first so many images, that rejects the last so many; and its data."""
    x = torch.linspace(0, 1, examples)[:, None, None, None]
    data = Data(x, torch.zeros(examples, dtype=torch.int64), "hundred", "", torch.arange(examples))

    def network(x):
        place = (x.flatten(1)[:, 0] * (examples - 1)).round()
        logits = torch.stack([(place < right).float(), (place >= right).float()], 1)
        score = None if rejected is None else (place >= examples - rejected).float() - 0.5
        return Outputs(logits, score)

    from unmask.classifier import Classifier

    return Classifier(network), data


@pytest.mark.parametrize(("right", "fits"), [(90, True), (86, True), (83, False), (0, False)])
def test_clean_accuracy_is_refused_beyond_chance_only(right, fits):
    # The exact 95 % interval of 83 of 100 ends at 0.898; that of 86 of 100 at 0.921 (Clopper & Pearson).
    claim = parse_claim({**LEAST, "clean_accuracy": 0.9, "batch_size": 7}, "")
    network, data = hundred(right, None)
    if fits:
        check_clean(claim, network, data, device="cpu")
        return
    with pytest.raises(UnusableInput, match=f"{right} of 100.*below the claimed clean_accuracy of 90.0%"):
        check_clean(claim, network, data, device="cpu")


@pytest.mark.parametrize(("rejected", "fits"), [(0, True), (9, True), (11, False), (100, False)])
def test_the_false_positive_rate_is_refused_beyond_chance_only(rejected, fits):
    # The exact interval of 11 of 100 begins at 0.0562; that of 9 of 100 at 0.042.
    claim = parse_claim({**LEAST, "false_positive_rate": 0.05}, "")
    network, data = hundred(100, rejected)
    if fits:
        check_clean(claim, network, data, device="cpu")
        return
    with pytest.raises(UnusableInput, match=f"{rejected} of 100.*false_positive_rate of 5.0%"):
        check_clean(claim, network, data, device="cpu")


def test_a_false_positive_rate_needs_a_detector():
    claim = parse_claim({**LEAST, "false_positive_rate": 0.05}, "")
    with pytest.raises(UnusableInput, match="returns no detector score"):
        check_clean(claim, *hundred(100, None), device="cpu")


def test_nothing_stated_costs_nothing():
    network, data = hundred(0, None)
    check_clean(parse_claim(LEAST, ""), network, data, device="cpu")
    assert network.meter.judge_forwards == 0


def test_weights_that_cannot_be_hashed_are_no_match():
    check_checkpoint(None, "", "a.py:f")
    check_checkpoint("ab", "ab", "a.py:f")
    with pytest.raises(UnusableInput, match=r"weights of a\.py:f cannot be hashed"):
        check_checkpoint("ab", "", "a.py:f")


# the checklist


FULL = {
    **LEAST,
    "data": "cifar10",
    "checkpoint_hash": "0" * 64,
    "passes": 1,
    "box": [0.0, 1.0],
    "goal": "untargeted",
    "knowledge": "white-box",
    "adaptive": True,
    "clean_accuracy": 0.9,
    "claim": 0.4,
}


def left_open(values) -> set[str]:
    return {item.item for item in check(parse_claim(values, "")) if item.status == "open"}


def test_a_full_claim_leaves_nothing_open_but_what_no_file_can_say():
    assert left_open(FULL) == set()
    assert {item.status for item in check(parse_claim(FULL, ""))} == {"stated", "audited", "yours"}


@pytest.mark.parametrize(
    ("change", "opened"),
    [
        ({"checkpoint_hash": None}, {"pre-trained model and source code"}),
        ({"claim": None}, {"a concrete claim"}),
        ({"clean_accuracy": None}, {"clean accuracy"}),
        ({"adaptive": False}, {"adaptive attacks"}),
        ({"knowledge": "labels"}, {"the adversary knows how the defence works"}),
        ({"goal": "targeted"}, {"precise threat model"}),
        ({"goal": "targeted", "targets": "random"}, set()),
        ({"epsilon": 0}, {"precise threat model"}),
    ],
)
def test_each_gap_opens_its_item(change, opened):
    assert left_open({**FULL, **change}) == opened


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("passes", {"randomness is averaged over"}),
        ("goal", {"precise threat model"}),
        ("data", {"a concrete claim"}),
    ],
)
def test_what_is_meant_must_be_said(name, opened):
    assert left_open({key: value for key, value in FULL.items() if key != name}) == opened


def test_a_quick_budget_opens_the_items_it_skips():
    assert len(left_open({**FULL, "budget": "quick"})) == 5


def test_what_is_said_of_the_attack_fits_the_adversary():
    def remark(item, **stated):
        return next(i.remark for i in check(parse_claim({**FULL, **stated}, "")) if i.item == item)

    assert "repaired gradients" in remark("adaptive attacks")
    assert "nothing that it hid is used" in remark("adaptive attacks", knowledge="scores")
    assert "black box against white box" in remark("adaptive attacks beat all others, per example")
    assert "white box" not in remark("adaptive attacks beat all others, per example", knowledge="scores")
    assert "targeted (3)" in remark("precise threat model", goal="targeted", targets=3)
    assert "it says more" in remark("targeted and untargeted attacks", goal="targeted", targets=3)


def test_every_item_has_a_remark():
    items = check(parse_claim(LEAST, ""))
    assert all(item.remark for item in items)
    assert [item.part for item in items] == sorted(
        (item.part for item in items), key=("severe", "pitfalls", "special").index
    )
