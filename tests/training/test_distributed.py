"""Two processes train together: the same run as one process with as many devices."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from aver_jax import load_run

FIELDS = [
    "data.image_size=16", "data.num_frames=2", "batch_size=4", "epochs=2.0",
    "evaluation.batch_size=12", "evaluation.every_epochs=1.0", "log_every_steps=2",
    "optimizer.name=sgd", "distributed=true",
]  # fmt: skip
MODELS = {
    "timesformer.py:size=demo": [
        "model.width=16", "model.depth=2", "model.unroll=2", "model.num_heads=2",
    ],
    # Its batch statistics are those of both processes' examples.
    "mrpn.py:network=n2,size=study": [
        "model.width=4", "model.stage_sizes=(1,)", "model.features=4", "optimizer.lr=0.05",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("config", MODELS)
def test_two_processes_compute_what_one_does(config, synthetic_dataset, tmp_path):
    def start(run, process, count, port):
        fields = [*FIELDS, *MODELS[config], f"data.path={synthetic_dataset}"]
        words = ["--config", config, "--workdir", str(tmp_path / run)]
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // count}",
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(process),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "aver_jax", "train", *words]
            + [f"--config.{field}" for field in fields],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    for run, count in (("one", 1), ("two", 2)):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        processes = [start(run, process, count, port) for process in range(count)]
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
    one, two = (load_run(tmp_path / run, "last").variables for run in ("one", "two"))
    # Biases before a batch norm have no gradient but rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), two, one)
