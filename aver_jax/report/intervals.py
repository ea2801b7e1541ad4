"""Scores with their intervals, in words. Imports nothing, so that anybody may call it."""

from collections.abc import Mapping
from typing import Any


def percent_with_interval(score: Mapping[str, Any]) -> str:
    """Returns such as "41.2% [35.0, 47.1]" of an entry with value, low and high (None: unknown)."""
    return f"{100 * score['value']:.1f}%{_interval(score, '.1f')}"


def points_with_interval(change: Mapping[str, Any]) -> str:
    """Returns such as "-2.1 points [-4.2, +0.0]" of a difference with value, low and high."""
    return f"{100 * change['value']:+.1f} points{_interval(change, '+.1f')}"


def _interval(score: Mapping[str, Any], form: str) -> str:
    if score["low"] is None:
        return ""
    return f" [{100 * score['low']:{form}}, {100 * score['high']:{form}}]"
