"""How numbers and names are put into one line of text."""


def counted(number: int, thing: str) -> str:
    """Returns a number of things: "1 clip", "2 clips"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def one_line(text: str) -> str:
    """Escapes what a name may hold and a line may not: line breaks, and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
