"""The PyTorch side of the throughput benchmark: models, front end, training and relevance.

`python -m tools.baseline.worker` answers the benchmark's requests; `sides` says who does what.
torch is imported here and nowhere in `aver_jax`, and no module here imports jax.
"""
