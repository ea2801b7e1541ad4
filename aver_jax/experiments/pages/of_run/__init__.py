"""Pages of experiments on one trained run."""
