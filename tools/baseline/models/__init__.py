"""The networks in PyTorch, and how weights of aver_jax come into them."""
