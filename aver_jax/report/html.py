"""One self-contained HTML page: pictures and videos inlined, no script, nothing fetched."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import jinja2
import numpy as np

from aver_jax.report import figures
from aver_jax.runtime.atomic_files import write_whole

VIDEO_LIMIT_BYTES = 3_000_000


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    paragraphs: Sequence[str]
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Notice:
    """A paragraph that must not be overlooked."""

    title: str
    text: str
    kind: ClassVar[str] = "notice"


@dataclass(frozen=True)
class Tiles:
    """Headline numbers: (name, value, detail)."""

    items: Sequence[tuple[str, str, str]]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Table:
    """A table; columns after the first `text_columns` are numbers unless `numeric` is False."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    numeric: bool = True
    text_columns: int = 1
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Commands:
    """Commands as typed, each with what it does: (purpose, command)."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "commands"


@dataclass(frozen=True)
class Picture:
    """An image; `dark` is shown instead where the reader's system is dark.

    `source` and `dark` are data URIs (`drawn`, `photo`); `width` is the largest in CSS pixels.
    """

    source: str
    caption: str = ""
    dark: str = ""
    width: int = 0
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Video:
    """A short clip with controls (`video`)."""

    source: str
    caption: str = ""
    kind: ClassVar[str] = "video"


@dataclass(frozen=True)
class Columns:
    """Stacks of blocks side by side where the page is wide enough, two or so in a row."""

    stacks: Sequence[Sequence["Block"]]
    kind: ClassVar[str] = "columns"


Block = Text | Notice | Tiles | Table | Commands | Picture | Video | Columns


@dataclass(frozen=True)
class Section:
    """A heading, one sentence under it, and blocks."""

    title: str
    blocks: Sequence[Block]
    lead: str = ""


def drawn(figure: Callable[[figures.Theme], figures.Figure], caption="", width=0) -> Picture:
    """Returns a figure drawn twice, for light and dark systems.

    Args:
      figure: theme -> figure.
      caption: below it.
      width: largest width in CSS pixels; 0 for the whole column.
    """
    light, dark = (
        _data_uri("image/svg+xml", figures.svg(figure(theme)))
        for theme in (figures.LIGHT, figures.DARK)
    )
    return Picture(light, caption, dark, width)


def photo(image: np.ndarray, caption: str = "", width: int = 0, quality: int = 88) -> Picture:
    """Returns a picture uint8 [H, W, 3] RGB as an inlined JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)
    return Picture(_data_uri("image/jpeg", data.tobytes()), caption, width=width)


def pixels(figure: figures.Figure, caption: str = "", width: int = 0, dpi: int = 90) -> Picture:
    """Returns a figure as an inlined PNG: for those with a picture inside, large as SVG."""
    return Picture(_data_uri("image/png", figures.png(figure, dpi)), caption, width=width)


def video(path: Path, caption: str = "") -> Video | Text:
    """Returns an mp4 file inlined, or its path as text if it is larger than `VIDEO_LIMIT_BYTES`."""
    if path.stat().st_size > VIDEO_LIMIT_BYTES:
        return Text([f"{caption} (too long to show here): {path}"])
    return Video(_data_uri("video/mp4", path.read_bytes()), caption)


def write_report(
    path: Path,
    title: str,
    sections: Sequence[Section],
    subtitle: str = "",
    metadata: Sequence[tuple[str, str]] = (),
) -> Path:
    """Writes the page, moved into place whole.

    Args:
      path: the HTML file; its folder is made if missing.
      title: of the page.
      sections: in order; empty ones are left out.
      subtitle: one sentence.
      metadata: short (name, value) pairs under the title.

    Returns:
      `path`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aver_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        title=title,
        subtitle=subtitle,
        metadata=metadata,
        sections=[section for section in sections if section.blocks],
    )
    write_whole(path, page)
    return path


def _data_uri(media_type, data):
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
