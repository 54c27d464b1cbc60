import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from unmask.audit.runtime.journal import Journal, read_settings
from unmask.errors import UnusableInput

SETTINGS = {"epsilon": 8 / 255, "norm": "linf", "attacks": ["pgd"], "claim": None}


def test_what_is_put_comes_back_in_another_process(tmp_path):
    journal = Journal(tmp_path / "journal", SETTINGS)
    tensors = {
        "x_adv": torch.rand(4, 1, 8, 8),
        "index": torch.arange(4),
        "broken": torch.tensor([True, False] * 2),
    }
    journal.put("race/pgd", {"robust_accuracy": 0.25, "who": "π"}, tensors)
    journal.close()
    entry = Journal(tmp_path / "journal", SETTINGS, resume=True).get("race/pgd")
    assert entry is not None
    assert entry.record == {"robust_accuracy": 0.25, "who": "π"}
    assert entry.tensors.keys() == tensors.keys()
    assert all(torch.equal(entry.tensors[k], v) for k, v in tensors.items())
    assert "race/pgd" in journal
    assert "race/apgd" not in journal
    assert journal.get("race/apgd") is None


def test_a_second_put_replaces_and_views_are_stored_whole(tmp_path):
    journal = Journal(tmp_path, SETTINGS)
    journal.put("a", {"n": 1})
    journal.put("a", {"n": 2}, {"t": torch.arange(6).reshape(2, 3).T, "empty": torch.zeros(0, 3)})
    entry = journal.get("a")
    assert entry is not None
    assert entry.record == {"n": 2}
    assert entry.tensors["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert entry.tensors["empty"].shape == (0, 3)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_entry_is_dropped_with_a_warning(tmp_path, damage):
    journal = Journal(tmp_path, SETTINGS)
    journal.put("good", {"n": 1}, {"t": torch.ones(3)})
    journal.put("bad", {"n": 2}, {"t": torch.ones(3)})
    path = journal._path("bad")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"cut": bytes(content[:50]), "flip": bytes(content), "empty": b""}[damage])
    with pytest.warns(UserWarning, match="'bad'.*damaged; its step runs again"):
        assert journal.get("bad") is None
    assert journal.get("bad") is None
    assert journal.get("good") is not None


def test_other_settings_are_refused_by_name(tmp_path):
    Journal(tmp_path, SETTINGS)
    with pytest.raises(UnusableInput, match=r"norm = linf, not l2; resume with the same settings"):
        Journal(tmp_path, {**SETTINGS, "norm": "l2"}, resume=True)
    with pytest.raises(UnusableInput, match="seed = None, not 3"):
        Journal(tmp_path, {**SETTINGS, "seed": 3}, resume=True)
    Journal(tmp_path, {**SETTINGS, "attacks": ("pgd",)}, resume=True)


def test_resume_where_nothing_is_and_start_where_something_is(tmp_path):
    assert (
        Journal(tmp_path / "fresh", SETTINGS, resume=True).get("a") is None
    )  # killed before its first entry
    Journal(tmp_path / "one", SETTINGS)
    with pytest.raises(UnusableInput, match="already holds an audit; add --resume"):
        Journal(tmp_path / "one", SETTINGS)
    assert read_settings(tmp_path / "none") is None
    assert read_settings(tmp_path / "one") == SETTINGS


WRITER = """
import sys, torch
from unmask.audit.runtime.journal import Journal
journal = Journal(sys.argv[1], {"a": 1})
n = 0
while True:
    journal.put(str(n), {"n": n}, {"t": torch.full((200_000,), n)})
    n += 1
    print(n, flush=True)
"""


def test_kill_nine_at_any_moment_leaves_whole_entries(tmp_path):
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(3 + attempt):
            process.stdout.readline()
        time.sleep(0.003 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate()
        told = 3 + attempt + len(rest.splitlines())
        journal = Journal(folder, {"a": 1}, resume=True)
        for n in range(told):
            entry = journal.get(str(n))
            assert entry is not None
            assert entry.record == {"n": n}
            assert (entry.tensors["t"] == n).all()
        after = journal.get(str(told))  # perhaps finished, perhaps not, never damaged: that would warn
        assert after is None or after.record == {"n": told}


def test_an_entry_is_cheap(tmp_path):
    journal = Journal(tmp_path, SETTINGS)
    tensors = {"x_adv": torch.rand(64, 3, 32, 32)}
    spent = []
    for n in range(20):
        start = time.perf_counter()
        journal.put(str(n), {"n": n}, tensors)
        spent.append(time.perf_counter() - start)
    assert sorted(spent)[10] < 0.05  # a wide bound, for disks differ in how fast they flush


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_copy_of_the_process_neither_keeps_the_lock_nor_gives_it_away(tmp_path):
    journal = Journal(tmp_path, SETTINGS)
    if (ends := os.fork()) == 0:
        os._exit(0)
    os.waitpid(ends, 0)
    with pytest.raises(UnusableInput, match="another audit is writing"):
        Journal(tmp_path, SETTINGS, resume=True)
    if (stays := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    try:
        journal.close()
        Journal(tmp_path, SETTINGS, resume=True).close()
    finally:
        os.kill(stays, signal.SIGKILL)
        os.waitpid(stays, 0)


def test_the_time_that_was_spent_before_is_known(tmp_path):
    first = Journal(tmp_path, SETTINGS)
    assert first.before == 0
    first._opened -= 100
    first.put("a", {})
    first.close()
    second = Journal(tmp_path, SETTINGS, resume=True)
    assert 100 <= second.before < 110
    second._opened -= 1000
    second.put("b", {})
    second.close()
    assert 1100 <= Journal(tmp_path, SETTINGS, resume=True).before < 1110


def test_a_resumed_audit_has_the_date_of_its_beginning(tmp_path):
    first = Journal(tmp_path, SETTINGS)
    first.began -= 3 * 86400
    first.put("a", {})
    first.close()
    assert abs(Journal(tmp_path, SETTINGS, resume=True).began - first.began) < 1


@pytest.mark.parametrize("damaged", ["what?", "", "5", "nan nan", "1 1e300", "-1 -1", "1 2 3"])
def test_damaged_times_are_no_times(tmp_path, damaged):
    Journal(tmp_path, SETTINGS).close()
    (tmp_path / "seconds").write_text(damaged)
    again = Journal(tmp_path, SETTINGS, resume=True)
    assert again.before == 0
    assert abs(again.began - time.time()) < 60
