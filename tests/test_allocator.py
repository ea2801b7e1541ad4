import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from aver_jax.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.full(2**24, 1.0)  # 128 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.full(2**24, 1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_was_freed_is_used_again_without_page_faults():
    faults = {
        mode: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True
            ).stdout
        )
        for mode in ("keep", "return")
    }
    assert faults["keep"] < 100 < faults["return"]
