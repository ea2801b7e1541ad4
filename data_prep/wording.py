"""How numbers and names are put into one line of text, and what is told about a clip."""


class Note(str):
    """A line that a person should know about a clip.

    Attributes:
      about: "file", "video", "audio" or "faces": to whom it matters.
    """

    about: str

    def __new__(cls, text: str, about: str = "file") -> "Note":
        """Returns the text, with what it is about."""
        note = super().__new__(cls, text)
        note.about = about
        return note


def counted(number: int, thing: str) -> str:
    """Returns a number of things: "1 clip", "2 clips"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def one_line(text: str) -> str:
    """Escapes what a name may hold and a line may not: line breaks, and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
