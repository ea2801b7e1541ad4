"""What a benchmark runs in a process of its own: synthetic inputs, tasks, files and protocol."""
