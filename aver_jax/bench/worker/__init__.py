"""What runs in a worker process of the benchmark: one implementation of the cases."""
