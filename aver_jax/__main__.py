"""`python -m aver_jax` is the `aver` command."""

import sys

from aver_jax.cli import main

sys.exit(main())
