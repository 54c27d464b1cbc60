"""A thread that an attack leaves behind could change the network at any time: it is named, and the audit ends."""

import _thread
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from unmask.attacks.foreign import as_attack
from unmask.audit.runtime.threads import Threads
from unmask.errors import AttackFailed

from .networks import AUDIT, write
from .own_attack import Own, run

END = threading.Event()


@pytest.fixture(autouse=True)
def ended():
    END.clear()
    yield
    END.set()


def spoil(network=None):
    while not END.wait(0.01):
        if network is not None:
            network.bias.data += 1


def plainly(network):
    threading.Thread(target=spoil, args=(network,), daemon=True, name="spoiler").start()


def without_threading(network):
    _thread.start_new_thread(spoil, (network,))


def by_a_pool(network):
    ThreadPoolExecutor(1).submit(spoil, network)


def later(network):
    timer = threading.Timer(60, spoil)
    timer.daemon = True
    timer.start()


def of_a_thread(network):
    thread = threading.Thread(target=plainly, args=(network,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("does", [plainly, without_threading, by_a_pool, later, of_a_thread])
def test_what_goes_on_is_named_with_its_place(does, monkeypatch):
    monkeypatch.setattr("unmask.audit.runtime.threads.PATIENCE", 0.1)
    with pytest.raises(AttackFailed, match=r"left the thread .*test_threads\.py:\d+\) running") as raised:
        run(Own(does))
    assert "\n" not in str(raised.value)


def test_a_plain_function_is_asked_the_same():
    def spoils(network, x, y):
        plainly(None)
        return x

    with pytest.raises(AttackFailed, match="`spoiler`"):
        run(as_attack(spoils, "spoils"))


def test_what_ends_soon_is_waited_for():
    run(Own(lambda network: threading.Thread(target=time.sleep, args=(0.05,)).start()))
    run(Own(lambda network: threading.Thread(target=lambda: time.sleep(0.1)).start()))


def test_workers_and_monitors_of_libraries_may_stay():
    pools = []

    def idle(network):
        pools.append(ThreadPoolExecutor(1))
        pools[0].submit(abs, 1).result()

    assert run(Own(idle)) == []
    pools[0].shutdown()


def test_what_ran_before_is_not_the_attacks():
    plainly(None)
    without_threading(None)
    time.sleep(0.05)
    assert Threads().left(0.0) is None
    run(Own(lambda network: None))


@pytest.mark.slow
def test_an_audit_ends_in_one_line_though_the_thread_never_does(tmp_path):
    text = (
        "import threading, time\n\n\ndef forever():\n    for _ in range(600):\n        time.sleep(0.1)\n\n\n"
        "def spoils(network, x, y):\n    threading.Thread(target=forever).start()\n    return x\n"
    )
    write(tmp_path, text)
    command = [sys.executable, "-m", "unmask", "audit", "own.py:sound", *AUDIT, "--attack", "own.py:spoils"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "left the thread" in ended.stderr
    assert "Traceback" not in ended.stderr
