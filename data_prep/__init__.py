"""Media files in, TFDS/ArrayRecord datasets out."""
