"""Predictions for media files."""
