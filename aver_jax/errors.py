"""Errors with a message for the person at the keyboard."""

from data_prep.errors import UnusableClip, UserError

__all__ = ["UnusableClip", "UserError"]
