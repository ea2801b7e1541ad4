"""Fields of `config.frontend` and of its parts: which there are."""

from collections.abc import Iterable


def check_known(part: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError naming the given fields of a part, such as "frontend.sound", it lacks."""
    known = list(known)
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(
            f"{part} has unknown fields {', '.join(unknown)}; known: {', '.join(known)}"
        )
