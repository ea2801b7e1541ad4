"""Two processes train from clips in their devices' memory as one with as many devices does."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from aver_jax import load_run

FIELDS = (
    "data.image_size=12", "data.num_frames=2", "data.max_seconds=0.8", "data.cache_frames=5",
    "batch_size=4", "epochs=2.0", "evaluation.batch_size=12", "evaluation.every_epochs=1.0",
    "log_every_steps=2", "optimizer.name=sgd", "optimizer.lr=0.05", "model.width=4",
    "model.stage_sizes=(1,)", "model.features=4", "model.aggregator=mean",
    "model.scoring_hidden=6", "frontend.spectrogram.bands=8", "distributed=true",
)  # fmt: skip
# `aver` on devices with as little memory as the first word says.
SMALL = (
    "import sys; from aver_jax.training import device_cache; from aver_jax.cli import main; "
    "device_cache.free_memory = lambda *_: int(sys.argv[1]); sys.exit(main(sys.argv[2:]))"
)


def run_of(folder, dataset, processes, free, *fields):
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        port = unused.getsockname()[1]
    words = [f"--config.{field}" for field in (*FIELDS, *fields, f"data.path={dataset}")]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SMALL, str(free), "train", "--config",
             "mrpn.py:network=n0,size=study", "--workdir", str(folder), *words],
            env={
                **os.environ,
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // processes}",
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(process),
            },
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for process in range(processes)
    ]  # fmt: skip
    told = []
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        told.append(errors)
    return load_run(folder, "last").variables, told[0]


@pytest.mark.slow
@pytest.mark.parametrize("free", [10**9, 400_000], ids=["replicated", "sharded"])
def test_two_processes_take_what_one_does(free, synthetic_dataset, tmp_path):
    many = ("data.cache=device", "steps_per_dispatch=3")
    two, told = run_of(tmp_path / "two", synthetic_dataset, 2, free, *many)
    assert ("its own shard of the clips" in told) == (free < 10**9)
    alone = ("data.cache=none",) if free == 10**9 else many
    one, _ = run_of(tmp_path / "one", synthetic_dataset, 1, free, *alone)
    # Biases before a batch norm have no gradient but rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), two, one)
