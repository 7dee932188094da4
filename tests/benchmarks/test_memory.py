"""Freed memory is kept by the process: no page is asked for twice."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CODE = """
import resource, sys
import numpy as np
sys.path.insert(0, {folder!r})
import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(2**23)  # 64 MiB, 16,384 pages of 4 KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
print(memory.keep_freed_memory(), usual, faults(), faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_kept():
    run = subprocess.run(
        [sys.executable, "-c", CODE.format(folder=str(BENCHMARKS))],
        capture_output=True,
        text=True,
        check=True,
    )
    kept, usual, _, after = run.stdout.split()
    if kept != "True":
        pytest.skip("no glibc")
    # Huge pages make faults few, but never fewer for blocks that are taken anew.
    assert int(after) < 100 and int(after) < int(usual)
