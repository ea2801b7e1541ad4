"""Throughput of aver_jax: clips per second against roofline bounds and other implementations.

`cases` lists what is timed, `inputs` makes its data, `tasks` runs it in a `worker` process, and
`runner` alternates the workers of several implementations.
"""
