"""The training job: from a prepared dataset and a config to a run folder."""
