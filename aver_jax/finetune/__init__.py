"""Trainings that start from earlier runs."""
