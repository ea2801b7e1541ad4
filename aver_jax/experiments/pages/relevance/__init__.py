"""Pages of the experiments on a run's relevance, and their figures."""
