"""The modalities of a clip: their names, and the arrays that carry them."""

import enum


class Modality(enum.StrEnum):
    """What a clip consists of; the value is the name in configs, models, files and messages.

    `Modality("frames")` is VIDEO too: configs and run folders written before 2026-12 say "frames".
    """

    VIDEO = "video"
    AUDIO = "audio"

    @property
    def array(self) -> str:
        """Name of its array in a batch and in a model's inputs: "frames" or "audio"."""
        return "frames" if self is Modality.VIDEO else "audio"

    @classmethod
    def _missing_(cls, value: object) -> "Modality | None":
        return cls.VIDEO if value == "frames" else None


def modalities_of(names) -> tuple[Modality, ...]:
    """Returns modalities in the order of their names; ValueError for a name that is none."""
    return tuple(Modality(name) for name in names)
