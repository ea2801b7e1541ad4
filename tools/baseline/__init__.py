"""The PyTorch implementations of the throughput benchmark: models, front end, training, relevance.

`python -m tools.baseline.worker` serves the benchmark; `implementations` says who does what.
torch is imported here and nowhere in `aver_jax`, and no module here imports jax.
"""
