"""Readers: folders of clips as CREMA-D, RAVDESS and people lay them out, as one kind of list."""
