"""Errors with a message for the person at the keyboard."""


class UserError(Exception):
    """Something a user can put right; its text is one line: what was found, expected, and to do."""


class UnusableClip(Exception):
    """A clip that cannot be prepared; its text is the reason, as written to `skipped.csv`."""


class MissingModality(UnusableClip):
    """An undamaged clip that lacks what is required of it: video with a face, or sound."""
