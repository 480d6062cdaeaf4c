"""Freed memory stays with a process of a pod, and its collector looks seldom."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Each array is 2 MB, 512 pages; what the process touches for the first time is a page fault each.
PROGRAM = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from tidewarden_cli.run.memory import keep_freed_memory
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [np.ones(262_144) for _ in range(10)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_arrays_that_come_and_go_do_not_cost_new_pages():
    """Twenty rounds of ten arrays of 2 MB fault in the pages of a few rounds, not of all."""
    command = [sys.executable, "-c", PROGRAM, "kept"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 4 * 10 * 512


POLLS = """
import gc
from tidewarden_cli.run.memory import look_seldom_for_cycles
look_seldom_for_cycles()
looks = []
gc.callbacks.append(lambda phase, info: looks.append(phase))
for _ in range(20):
    messages = [[i] for i in range(10_000)]
print(len(looks))
"""


def test_messages_that_come_and_go_do_not_wake_the_collector():
    """Twenty polls of 10,000 objects end without a single collection; with Python's own thresholds it is hundreds."""
    done = subprocess.run([sys.executable, "-c", POLLS], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == 0
