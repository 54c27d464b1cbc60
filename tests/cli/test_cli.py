"""The command line against a stand-in for the engine, and against real evidence."""

import argparse
import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from tests.audit.small_audit import EPSILON, EXAMPLES, small_audit, write_target

from unmask.attacks.pgd import PGD
from unmask.claim.claim import Claim
from unmask.cli import options
from unmask.cli.audit import free_folder
from unmask.cli.main import main, parser
from unmask.errors import Interrupted, ModelFailed, UnusableInput

LEAST = {"target": "a.py:f", "norm": "linf", "epsilon": 0.1}


class Engine:
    """Stands in for `unmask.audit.run.audit`: records its arguments and audits by the closed form."""

    def __init__(self):
        self.calls = []
        self.change = {}
        self.raises = None

    def __call__(self, target, data, claim, *, out, progress, **rest):
        self.calls.append(SimpleNamespace(target=target, data=data, claim=claim, out=out, **rest))
        progress.stage("trace")
        progress.note("the batch was halved to 8")
        progress.update(0.75, 3, 10)
        print("the user's network prints this")
        if self.raises is not None:
            raise self.raises
        report = small_audit(out, target.spec, claim=claim.claim, data=data)
        progress.finding(report.masking[0])
        return report.model_copy(update=self.change)


@pytest.fixture
def engine(monkeypatch):
    module, engine = ModuleType("unmask.audit.run"), Engine()
    module.audit = engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unmask.audit.run", module)
    return engine


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_target(tmp_path)
    return tmp_path


AUDIT = [
    "audit",
    "nearest_mean.py:linear",
    "--norm",
    "linf",
    "--epsilon",
    str(EPSILON),
    "--examples",
    str(EXAMPLES),
]


def one_line(capsys, *argv) -> str:
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unmask: ")
    assert err.count("\n") == 1
    return err


# exit status


def test_without_a_claim_the_status_is_zero(engine, folder):
    assert main(AUDIT) == 0


def test_a_refuted_claim_is_one_and_a_modest_one_zero(engine, folder):
    assert main([*AUDIT, "--claim", "0.99"]) == 1
    assert main([*AUDIT, "--claim", "0.2"]) == 0


@pytest.mark.parametrize(("verdict", "status"), [("inconclusive", 3), ("certified", 0), ("not_refuted", 0)])
def test_other_verdicts(engine, folder, verdict, status):
    engine.change = {"verdict": verdict, "certified_accuracy": 0.3}
    assert main([*AUDIT, "--claim", "0.2"]) == status


@pytest.mark.parametrize(("gate", "status"), [("0", 0), ("1", 1), ("100/100", 1), ("1e-3", 0)])
def test_a_gate_on_the_measured_share(engine, folder, capsys, gate, status):
    assert main([*AUDIT, "--fail-under", gate]) == status
    assert ("is below --fail-under" in capsys.readouterr().err) == (status == 1)


@pytest.mark.parametrize("gate", ["1.5", "-0.1", "half", "nan"])
def test_no_gates(engine, folder, capsys, gate):
    told = one_line(capsys, *AUDIT, f"--fail-under={gate}")
    assert "--fail-under" in told
    assert not engine.calls


# what is written and printed


def test_the_folder_can_be_verified(engine, folder, capsys):
    assert main([*AUDIT, "--claim", "0.99", "--out", "result"]) == 1
    out, _ = capsys.readouterr()
    for name in ("report.json", "report.html", "evidence.safetensors"):
        assert (folder / "result" / name).is_file()
        assert f"result/{name}" in out
    assert main(["verify", "result"]) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[-1].startswith("Verified: ")
    (folder / "nearest_mean.py").write_text(
        (folder / "nearest_mean.py").read_text().replace("2 * means", "means")
    )
    assert main(["verify", "result", "--quiet"]) == 1
    assert capsys.readouterr().out.startswith("Not verified: ")


def test_the_verdict_comes_first_and_paths_are_whole(engine, folder, capsys):
    long = folder / ("a_long_folder_name_" * 6)
    main([*AUDIT, "--claim", "0.99", "--out", str(long)])
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line and "network prints" not in line]
    assert lines[0].startswith("REFUTED  The claim of 99 % does not hold.")
    assert f"{long}/report.html" in out
    assert "nearest_mean.py:7" in out
    assert "class NearestMean(nn.Module):" in out
    assert "\x1b" not in out + err
    assert "trace" in err
    assert "the batch was halved to 8" in err
    assert "masked: shattered gradient · torch.round · nearest_mean.py:7" in err


def test_json_on_standard_output_and_everything_else_on_standard_error(engine, folder, capsys):
    main([*AUDIT, "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out)["schema"] == 1
    assert "the user's network prints this" in err
    assert "MEASURED" in err
    main(["verify", "unmask-linear", "--json"])
    assert json.loads(capsys.readouterr().out)["holds"] is True


def test_quiet(engine, folder, capsys):
    main([*AUDIT, "--quiet", "--claim", "0.99"])
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("Refuted. The claim of 99 %")
    assert len(out.splitlines()) == 2
    assert err == ""


def test_all_options_reach_the_engine(engine, folder):
    (folder / "mine.py").write_text(
        "from unmask.attacks.pgd import PGD\nclass Mine(PGD): pass\nready = PGD(steps=3)\n"
    )
    argv = [
        *AUDIT, "--claim", "83/100", "--data", "digits", "--split", "train", "--batch-size", "17",
        "--passes", "4",
        "--budget", "thorough", "--exhaustive", "--seed", "5", "--device", "cpu", "--out", "there",
        "--attack", "mine.py:Mine", "--attack", "mine.py:ready",
    ]  # fmt: skip
    main(argv)
    (call,) = engine.calls
    claim = call.claim
    assert claim.epsilon == EPSILON
    assert claim.norm == "linf"
    assert claim.claim == 0.83
    assert (claim.batch_size, claim.passes, claim.budget, claim.exhaustive, claim.seed) == (
        17,
        4,
        "thorough",
        True,
        5,
    )
    assert (call.data.split, len(call.data), claim.device, str(call.out)) == (
        "train",
        EXAMPLES,
        "cpu",
        "there",
    )
    assert call.resume is False
    first, second = call.attacks
    assert type(first).__name__ == "Mine"
    assert second == PGD(steps=3)


def test_defaults(engine, folder):
    main(AUDIT[:-2])
    (call,) = engine.calls
    assert len(call.data) == 500
    claim = call.claim
    assert (claim.budget, claim.exhaustive, claim.seed, claim.passes, claim.claim) == (
        "standard",
        False,
        0,
        1,
        None,
    )
    assert str(call.out) == "unmask-linear"


def test_no_result_is_ever_overwritten(engine, folder, capsys):
    main(AUDIT)
    main(AUDIT)
    assert [str(call.out) for call in engine.calls] == ["unmask-linear", "unmask-linear-2"]
    assert free_folder("unmask-linear").name == "unmask-linear-3"
    capsys.readouterr()
    assert "already holds a report; give another --out" in one_line(capsys, *AUDIT, "--out", "unmask-linear")


# claim files


def test_a_claim_file(engine, folder):
    (folder / "claims").mkdir()
    write_target(folder / "claims")
    (folder / "claims" / "claim.toml").write_text(
        'target = "nearest_mean.py:linear"\nnorm = "l2"\nepsilon = "8/255"\n'
        "claim = 0.9\nbatch-size = 9\nexamples = 12\n"
    )
    main(["audit", "claims/claim.toml", "--examples", "11"])
    (call,) = engine.calls
    assert call.target.source == folder / "claims" / "nearest_mean.py"
    claim = call.claim
    assert (claim.norm, claim.epsilon, claim.claim, claim.batch_size) == ("l2", 8 / 255, 0.9, 9)
    assert len(call.data) == 11


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("norm = ", "cannot be read as a claim"),
        ("targte = 'x.py:f'", "unknown key 'targte'; the keys are target, checkpoint_hash, passes"),
        ("target = 'a:b'\nnorm = 'linf'\nepsilon = 'large'", "'large' is no number"),
        (
            "target = 'a:b'\nnorm = 'linf'\nepsilon = 1\nseed = 'x'",
            "seed of claim.toml is 'x'; it should be a valid integer",
        ),
        (
            "target = 'a:b'\nnorm = 'l3'\nepsilon = 1",
            "norm of claim.toml is 'l3'; it should be 'linf', 'l2', 'l1', 'l0', 'l0-elements' or 'patch'",
        ),
        ("target = 'a:b'\nnorm = 'l2'\nepsilon = 1\nbudget = 'huge'", "budget of claim.toml is 'huge'"),
        ("norm = 'l2'\nepsilon = 1", "there is no target"),
        ("target = 'a:b'\nnorm = 'l2'\nepsilon = 1\nadaptive = false", "adaptive is false; an audit adapts"),
        (
            "target = 'a:b'\nnorm = 'l2'\nepsilon = 1\nqueries = 9",
            "queries is 9, but who sees the network need not ask it",
        ),
        (
            "target = 'a:b'\nnorm = 'l2'\nepsilon = 1\ngoal = 'targeted'",
            'goal is "targeted", but targets is not stated',
        ),
        (
            "target = 'a:b'\nnorm = 'l2'\nepsilon = 1\ntargets = 3",
            "targets is 3, but the goal is untargeted",
        ),
        (
            "target = 'a:b'\nnorm = 'l2'\nepsilon = 1\ntargets = 3\ngoal = 'targeted'\nknowledge = 'labels'",
            "an audit has no attack that reaches a given class by labels",
        ),
        (
            "target = 'a:b'\nnorm = 'l2'\nepsilon = 1\nknowledge = 'labels'\nqueries = 9\nattack = ['a.py:A']",
            "nobody can say how often a.py:A asks",
        ),
        ("target = 'a:b'\nnorm = 'l2'\nepsilon = 1\nknowledge = 'transfer'", "knowledge is 'transfer'"),
    ],
)
def test_a_bad_claim_file(folder, capsys, text, told):
    (folder / "claim.toml").write_text(text)
    assert told in one_line(capsys, "audit", "claim.toml")


PROMISED = 'target = "nearest_mean.py:linear"\nnorm = "linf"\nepsilon = 0.1\nexamples = 200\n'


@pytest.mark.parametrize(
    ("promise", "told"),
    [
        (f'checkpoint_hash = "{"0" * 64}"', "but the weights of nearest_mean.py:linear hash to "),
        ("clean_accuracy = 0.999", "below the claimed clean_accuracy of 99.9%"),
        ("false_positive_rate = 0.05", "but the network returns no detector score"),
    ],
)
def test_a_promise_that_is_not_kept(engine, folder, capsys, promise, told):
    (folder / "claim.toml").write_text(PROMISED + promise)
    assert told in one_line(capsys, "audit", "claim.toml")
    assert not engine.calls
    assert not list(folder.glob("unmask-*"))


def test_promises_that_are_kept_are_kept_on_resuming(engine, folder, capsys):
    engine.raises = Interrupted()
    (folder / "claim.toml").write_text(PROMISED + "clean_accuracy = 0.5\nclaim = 0.99\n")
    assert main(["audit", "claim.toml", "--out", "here"]) == 130
    engine.raises = None
    assert main(["audit", "--resume", "here"]) == 1
    stored = json.loads((folder / "here" / options.COMMAND).read_text())
    stored["clean_accuracy"] = 1.0
    (folder / "here" / options.COMMAND).write_text(json.dumps(stored))
    capsys.readouterr()
    assert "claimed clean_accuracy of 100.0%" in one_line(capsys, "audit", "--resume", "here")


def test_an_absent_claim_file(folder, capsys):
    assert "cannot be read as a claim" in one_line(capsys, "audit", "absent.toml")


# resuming


def test_ctrl_c_says_how_to_go_on_and_resume_needs_nothing_else(engine, folder, capsys):
    engine.raises = Interrupted()
    assert main([*AUDIT, "--seed", "3", "--claim", "0.99", "--out", "here"]) == 130
    assert "stopped; nothing is lost, go on with: unmask audit --resume here" in capsys.readouterr().err
    engine.raises = None
    assert main(["audit", "--resume", "here"]) == 1
    first, second = engine.calls
    assert second.resume is True
    assert str(second.out) == "here"
    assert (second.claim, second.target.spec) == (first.claim, first.target.spec)


def test_resume_where_nothing_is(engine, folder, capsys):
    assert "holds no interrupted audit" in one_line(capsys, "audit", "--resume", "nowhere")
    assert "differ; leave --out out" in one_line(capsys, *AUDIT, "--resume", "a", "--out", "b")


# errors


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["audit"], "there is no target"),
        (["audit", "a.py:f"], "--norm is missing; give for instance --norm linf"),
        (["audit", "a.py:f", "--norm", "linf"], "--epsilon is missing"),
        (["audit", "a.py:f", "--norm", "l7"], "argument --norm: invalid choice"),
        (
            ["audit", "a.py:f", "--norm", "linf", "--epsilon", "8/0"],
            "'8/0' is no number; give one such as 0.3 or 8/255",
        ),
        (["audit", "a.py:f", "--norm", "linf", "--epsilon", "nan"], "'nan' is no number"),
        (
            ["audit", "a.py:f", "--norm", "linf", "--epsilon=-0.1"],
            "--epsilon: -0.1 is no radius; give at least 0",
        ),
        ([*AUDIT, "--claim", "83"], "--claim is 83; give a share between 0 and 1, for instance 0.45"),
        ([*AUDIT, "--examples", "0"], "--examples is 0; give at least 1"),
        ([*AUDIT, "--batch-size", "0"], "--batch-size is 0"),
        ([*AUDIT, "--passes", "-1"], "--passes is -1"),
        ([*AUDIT, "--examples", "many"], "--examples is many; it should be a valid integer"),
        ([*AUDIT, "--device", "abacus"], "--device abacus cannot be used"),
        ([*AUDIT, "--data", "absent.npz"], "there is no file absent.npz"),
        ([*AUDIT, "--split", "dev"], "--split is 'dev'"),
        ([*AUDIT, "--attack", "nearest_mean.py:SIZE"], "is a int; give an unmask.attacks.Attack"),
        ([*AUDIT, "--attack", "nearest_mean.py:linear"], "is a NearestMean; give an unmask.attacks.Attack"),
        (["audit", "nearest_mean.py:broken", *AUDIT[2:]], "raised RuntimeError: no weights here"),
        (["audit", "absent.py:f", *AUDIT[2:]], "there is no file absent.py"),
        ([*AUDIT, "--out", "nearest_mean.py"], "is a file; give a folder"),
        (["verify", "absent"], "there is no absent/report.json"),
        (["verify"], "the following arguments are required: DIR"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_unusable_input_is_one_line_and_status_two(engine, folder, capsys, argv, told):
    assert told in one_line(capsys, *argv)
    assert not engine.calls
    assert not list(folder.glob("unmask-*"))


@pytest.mark.parametrize("error", [UnusableInput("pixels are\n  odd"), ModelFailed("the network raised")])
def test_errors_from_the_engine_are_one_line(engine, folder, capsys, error):
    engine.raises = error
    assert main([*AUDIT, "--quiet"]) == 2
    assert capsys.readouterr().err == f"unmask: {' '.join(str(error).split())}\n"


def test_a_pickle_is_refused_unless_the_user_says_so(engine, folder, capsys):
    x, y = np.zeros((4, 1, 8, 8), np.float32), np.zeros(4, np.int64)
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, folder / "data.pt")
    argv = [*AUDIT[:-1], "4", "--data", "data.pt"]
    assert "--allow-pickle" in one_line(capsys, *argv)
    assert main([*argv, "--allow-pickle"]) == 0


def test_a_defect_of_ours_is_shown_whole_under_its_own_status(engine, folder, capsys, monkeypatch):
    monkeypatch.setattr(
        "unmask.cli.main.user_line", lambda error: ""
    )  # the stand-in is no file of the package
    engine.raises = ZeroDivisionError("of ours")
    assert main([*AUDIT, "--out", "here"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ZeroDivisionError: of ours" in err
    assert "--resume here" in err


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert main(["audit", "--help"]) == 0
    out = capsys.readouterr().out
    for name in options.OPTIONS:
        assert f"--{name.replace('_', '-')}" in out
    for name in ("--out", "--resume", "--json", "--quiet"):
        assert name in out
    assert main(["--version"]) == 0


def test_the_command_line_is_the_claims_record_but_for_what_only_a_file_may_promise():
    argv = [*AUDIT, "--resume", "here"]
    spelt = {name for name in vars(parser().parse_args(argv)) if name in Claim.model_fields}
    # A box is typed in another form: it goes into the data's name.
    assert spelt - {"box"} == set(Claim.model_fields) - set(options.PROMISES)
    # Whatever an example of the record says can be typed, and comes out as the record has it.
    for name in options.OPTIONS:
        (example, *_) = Claim.model_fields[name].examples
        spelt = f"--{name.replace('_', '-')}"
        text = example[0] if isinstance(example, list) else str(example)
        typed = ([spelt] if example else []) if isinstance(example, bool) else [spelt, text]
        claim = options.gather(parser().parse_args(["audit", "a.py:f", *AUDIT[2:6], *typed]), None)
        assert getattr(claim, name) == getattr(Claim.model_validate({**LEAST, name: example}), name), name


@pytest.mark.parametrize(
    ("text", "value"), [("0.3", 0.3), ("8/255", 8 / 255), ("1e-9", 1e-9), ("0", 0.0), ("0.4/255", 0.4 / 255)]
)
def test_numbers(text, value):
    assert options.number(text) == value


@pytest.mark.parametrize("text", ["", "/", "8/", "x", "inf", "1/nan", "8/255/2"])
def test_no_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError):
        options.number(text)


def test_as_a_module_and_without_loading_torch_for_a_wrong_option(folder):
    code = (
        "import sys; from unmask.cli.main import main; s = main(); print('torch' in sys.modules); sys.exit(s)"
    )
    done = subprocess.run([sys.executable, "-c", code, "audit"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "False\n"
    done = subprocess.run([sys.executable, "-m", "unmask", "audit"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("unmask: there is no target")


def test_torchruns_other_processes_write_and_print_nothing(engine, folder, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main([*AUDIT, "--out", "shared", "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert not (folder / "shared" / "report.html").exists()
    assert not (folder / "shared" / options.COMMAND).exists()


def test_piped_tables_carry_no_padding(engine, folder, capsys):
    main(AUDIT)
    main(["verify", "unmask-linear"])
    out = capsys.readouterr().out
    assert all(line == line.rstrip() for line in out.splitlines())
