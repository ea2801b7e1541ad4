"""Audio-video emotion recognition on accelerators."""
