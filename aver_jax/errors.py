"""Errors with a message for the person at the keyboard."""

from data_prep.errors import MissingModality, UnusableClip, UserError

__all__ = ["MissingModality", "UnusableClip", "UserError"]
