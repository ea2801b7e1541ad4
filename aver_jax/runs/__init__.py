"""Run folders: the config, checkpoints and logs that a training leaves behind."""
