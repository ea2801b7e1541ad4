"""What programs run on: devices, compiled functions on disk, memory, signals, files."""
