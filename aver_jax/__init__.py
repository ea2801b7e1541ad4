"""Audio-video emotion recognition on accelerators, in JAX.

from aver_jax import load_run, relevance

model, variables, config = load_run("runs/demo/run")
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_run", "relevance"]


def __getattr__(name: str) -> Any:
    # Imported when first used: `aver --help` must not wait for jax.
    import importlib

    if name == "load_run":
        return importlib.import_module("aver_jax.runs.run_folder").load_run
    if name == "relevance":
        return importlib.import_module("aver_jax.relevance")
    raise AttributeError(f"module 'aver_jax' has no attribute {name!r}")
