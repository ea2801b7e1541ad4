"""What the commands run on: devices, compiled functions on disk, memory, signals, files."""
