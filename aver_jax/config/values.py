"""Configs as plain values: JSON types, dotted names, differences."""

from typing import Any

from ml_collections import ConfigDict


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as JSON types: references resolved, tuples as lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, ConfigDict | dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return value

    return plain(config)


def flat_fields(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested dict of JSON types as one of dotted names; an empty dict stays a value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flat_fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns (name, value before, value now), by name, of what differs between flat fields."""
    return [
        (name, before.get(name), now.get(name))
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
