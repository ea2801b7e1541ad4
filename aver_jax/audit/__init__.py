"""Whether a score on a dataset means something: trivial baselines, leaks, balance, duplicates."""
