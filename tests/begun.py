"""Commands in processes of their own that have imported everything already, so that one takes no seconds to begin.

A process that has imported torch and this package splits one off for each command. It ends as any process of Python
does: what is registered for the end runs, and its exit status is the system's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

_SPLITS = """\
import json, os, sys
import torch
import unmask.audit.run, unmask.bounds, unmask.data, unmask.attacks
from unmask.cli.main import command
from unmask.data import load
load("digits")
torch.set_num_threads(1)
for line in sys.stdin:
    words, folder, out, err = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        sys.path[0] = ""
        sys.argv = ["unmask", *words]
        for number, file in (0, os.devnull), (1, out), (2, err):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
        sys.exit(command())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Begun:
    """Runs `unmask WORDS` as a process, as often as it is asked to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SPLITS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def __call__(self, *words: str | Path, cwd: Path) -> CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = (cwd / f".{name}" for name in ("stdout", "stderr"))
        for file in (out, err):
            file.unlink(missing_ok=True)
        told = [[str(word) for word in words], *map(str, (cwd, out, err))]
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return CompletedProcess(words, status, out.read_text(), err.read_text())

    def end(self) -> None:
        self._process.communicate()
