"""What tools/gpu_check.sh runs: `check` runs a mode; `attention`, `steps`, `fast` work."""
