"""Throughput: what one call costs, against the physical floor and against other code.

`cases` says what is timed, `experiment` what a case runs on, `work` what one call is; a `worker`
does it in a process of its own, which `child` holds and `runner` alternates with others.
"""
