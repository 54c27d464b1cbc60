"""Freed memory stays in the process of the command line, unless the user said otherwise."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from unmask.cli.allocator import keep_freed_memory
keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)  # 64 MB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def faults(**environment: str) -> int:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS], env=kept | environment, capture_output=True, text=True, check=True
    )
    return int(ran.stdout)


def test_freed_memory_is_used_again_without_page_faults():
    assert faults() < 100


def test_the_users_own_settings_win():
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > 100
