"""Nothing that a target's file or forward pass does to the whole process decides how an audit of it runs."""

import random
import signal
import sys
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unmask.audit.records import Report
from unmask.audit.verify import verify
from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.errors import ModelFailed
from unmask.randomness import Streams
from unmask.state.process import Settings, kept
from unmask.state.settings import arithmetic, random_numbers, surroundings
from unmask.target.target import load_target

from .networks import AUDIT, write

# What a file does, and the name under which the audit says that it was undone.
CHANGES = {
    "torch.set_grad_enabled(False)": "torch's gradient mode",
    "torch.no_grad().__enter__()": "torch's gradient mode",
    "torch.set_default_dtype(torch.float64)": "torch's default dtype",
    "torch.set_default_device('meta')": "torch's default device",
    "torch.device('meta').__enter__()": "torch's default device",
    "torch.autocast('cpu', dtype=torch.bfloat16).__enter__()": "torch's autocast",
    "torch.use_deterministic_algorithms(True)": "torch's deterministic mode",
    "torch.use_deterministic_algorithms(True, warn_only=True)": "torch's deterministic mode",
    "torch.set_float32_matmul_precision('medium')": "torch's precision of products",
    "torch.autograd.set_detect_anomaly(True, check_nan=False)": "torch's anomaly mode",
    "torch.set_flush_denormal(True)": "torch's handling of denormal numbers",
    "torch.set_num_threads(torch.get_num_threads() + 1)": "torch's number of threads",
    "torch.backends.cudnn.deterministic = True": "cuDNN's settings",
    "from torch.overrides import TorchFunctionMode; TorchFunctionMode().__enter__()": "torch's function modes",
    "torch.Tensor.argmax = lambda *a, **k: None": "torch's functions that read answers",
    "torch.Tensor.__eq__ = lambda a, b: None": "torch's functions that read answers",
    "torch.topk = lambda *a, **k: None": "torch's functions that read answers",
    "np.seterr(all='raise')": "NumPy's handling of errors",
    "os.chdir(os.sep)": "the working directory",
    "sys.argv[:] = ['x']": "the command line",
    "sys.argv = ['x']": "the command line",
    "os.environ['RANK'] = '1'": "variables of the environment that are read here",
    "os.environ['WORLD_SIZE'] = '4'": "variables of the environment that are read here",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)": "handlers of signals",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_DFL)": "handlers of signals",
    "import io; sys.stdout = io.StringIO()": "standard output",
    "import io; sys.stderr = io.StringIO()": "standard error",
    "sys.setrecursionlimit(5000)": "the limit on recursion",
    "import warnings; warnings.simplefilter('error', FutureWarning)": "warnings that are raised",
    "import warnings; warnings.filterwarnings('error', 'never said')": "warnings that are raised",
}
DRAWS = ["torch.manual_seed(3)", "random.seed(3)", "np.random.seed(3)", "torch.rand(5)"]


@pytest.fixture(autouse=True)
def _handlers():
    """As the command line would have them, so that replacing one is a change."""
    mine = lambda number, frame: None  # noqa: E731
    before = {number: signal.signal(number, mine) for number in (signal.SIGINT, signal.SIGTERM)}
    with kept(), warnings.catch_warnings():
        yield
    for number, handler in before.items():
        signal.signal(number, handler)


def now():
    everything = arithmetic() + surroundings() + random_numbers()
    return {setting.name: setting.read() for setting in everything}


@pytest.mark.parametrize("line", CHANGES)
def test_what_the_callable_changes_is_put_back_and_named(tmp_path, line):
    file = write(tmp_path, f"def changes():\n    net = sound()\n    {line}\n    return net\n")
    before = now()
    assert load_target(f"{file}:changes").settings == (CHANGES[line],)
    assert now() == before


@pytest.mark.parametrize(
    "line", ["torch.set_grad_enabled(False)", "os.chdir(os.sep)", "np.seterr(all='raise')"]
)
def test_what_the_file_itself_changes_is_put_back_too(tmp_path, line):
    before = now()
    assert load_target(f"{write(tmp_path, line)}:sound").settings == (CHANGES[line],)
    assert now() == before


@pytest.mark.parametrize("line", DRAWS)
def test_seeds_are_put_back_without_a_word(tmp_path, line):
    before = now()
    assert load_target(f"{write(tmp_path, line)}:sound").settings == ()
    assert now() == before


def test_what_a_file_changes_before_it_raises_is_put_back(tmp_path):
    file = write(tmp_path, "torch.set_default_dtype(torch.float64)\nos.chdir(os.sep)\n1 / 0\n")
    before = now()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        load_target(f"{file}:sound")
    assert now() == before


def test_a_path_to_import_from_stays(tmp_path):
    """What is imported by the first forward pass must be found."""
    file = write(tmp_path, f"sys.path.insert(0, {str(tmp_path / 'beside')!r})\n")
    before = list(sys.path)
    assert load_target(f"{file}:sound").settings == ()
    assert str(tmp_path / "beside") in sys.path
    sys.path[:] = before


CHANGING = """
def changing():
    net = sound()
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    os.chdir(os.sep)
    os.environ["RANK"] = "1"
    np.seterr(all="raise")
    import warnings
    warnings.simplefilter("error")
    return net
"""


def test_the_audit_of_such_a_file_is_that_of_the_plain_one(tmp_path, monkeypatch, capsys):
    """Nothing is masked, written elsewhere, or left to processes that are not there."""
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, CHANGING)
    for name in ("sound", "changing"):
        assert main(["audit", f"{file}:{name}", *AUDIT, "--out", name]) == 0
    plain, changed = (
        Report.model_validate_json((tmp_path / n / "report.json").read_text()) for n in ("sound", "changing")
    )
    assert plain.robust_accuracy == changed.robust_accuracy
    assert [a.robust_accuracy for a in plain.attacks] == [a.robust_accuracy for a in changed.attacks]
    said = [w for w in changed.warnings if w.startswith("loading the target changed")]
    assert len(said) == 1
    for name in ("gradient mode", "default dtype", "working directory", "errors"):
        assert name in said[0]
    assert not any("loading the target" in w for w in plain.warnings)
    assert verify(tmp_path / "changing").holds
    capsys.readouterr()


class Leaves(nn.Module):
    """Changes a setting in its forward pass, and leaves it so."""

    def __init__(self, does, *, raises=False):
        super().__init__()
        self.does, self.raises = does, raises
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        logits = self.linear(x.flatten(1))
        self.does()
        if self.raises:
            raise ValueError("after it")
        return logits


FORWARD = {
    "gradients off": lambda: torch.set_grad_enabled(False),
    "no_grad entered": lambda: torch.no_grad().__enter__(),
    "another dtype": lambda: torch.set_default_dtype(torch.float64),
    "another device": lambda: torch.set_default_device("meta"),
    "anomaly mode": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    "a mode entered": lambda: TorchFunctionMode().__enter__(),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
}


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("raises", [False, True])
def test_what_a_forward_pass_leaves_changed_is_put_back(name, raises):
    classifier = Classifier(Leaves(FORWARD[name], raises=raises))
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    before = now()
    with pytest.raises(ModelFailed, match="after it") if raises else nullcontext():
        classifier(x, generator=Streams.seeded(0, torch.arange(2)))
    assert now() == before


def test_gradients_that_forward_turns_off_behind_it_mask_nothing():
    network = Leaves(lambda: torch.set_grad_enabled(False))
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    classifier = Classifier(network)
    values = classifier(x, generator=Streams.seeded(0, torch.arange(2))).logits[:, 0]
    assert torch.allclose(classifier.gradient(values, x)[0].flatten(), network.linear.weight[0])


def test_settings_are_read_before_they_are_written():
    written = []
    held = Settings(random_numbers())
    assert held.put_back() == written
    random.random()
    np.random.rand()
    assert held.put_back() == ["Python's random state", "NumPy's random state"]
