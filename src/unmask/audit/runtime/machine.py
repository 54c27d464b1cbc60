"""When and on what an audit ran, for the report: no name of a machine or of a person."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch

from ...errors import plural


def utc(seconds: float) -> str:
    """Date and minute.

    >>> utc(0)
    '1970-01-01 00:00 UTC'
    """
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def hardware(device: torch.device) -> str:
    """The processor with its cores and this process's threads, and the accelerator if one was used."""
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    cores = f"{processor()}, {cores} {plural(cores, 'core', 'cores')}, {threads} {plural(threads, 'thread', 'threads')}"
    return f"{torch.cuda.get_device_name(device)}; {cores}" if device.type == "cuda" else cores


def processor() -> str:
    """What the processor is called, as far as the system says."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:  # no Linux
        pass
    return platform.processor() or platform.machine()
