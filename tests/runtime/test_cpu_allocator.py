import subprocess
import sys

import pytest

from aver_jax.runtime import cpu_allocator

PROGRAM = """
import resource, sys
import numpy as np
from aver_jax.runtime.cpu_allocator import keep_freed_memory

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


@pytest.mark.parametrize(
    ("platforms", "files", "expected"),
    [
        ("cpu", True, True),
        ("cuda,cpu", False, False),
        ("", True, False),
        (None, True, False),
        (None, False, True),
    ],
)
def test_where_jax_computes_is_told_by_the_environment_or_the_devices(
    monkeypatch, tmp_path, platforms, files, expected
):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(cpu_allocator, "_ACCELERATORS", (f"{tmp_path}/nvidia[0-9]*",))
    if files:
        (tmp_path / "nvidia0").touch()
    assert cpu_allocator.computes_on_cpu() is expected
