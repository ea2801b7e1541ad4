"""Statistics over the runs of a grid: pooling, paired differences, verdicts."""
