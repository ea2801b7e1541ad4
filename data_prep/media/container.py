"""An open media file: what stands in the way of opening it, its streams, its decoded frames."""

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av

from data_prep.errors import UnusableClip
from data_prep.wording import Note

_LFS_START = b"version https://git-lfs"
#: The reason why such a file is no clip.
LFS_POINTER = "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"
# A clock that goes back by more than this begins anew: files were joined without a new one.
_NEW_CLOCK_SECONDS = 0.3
# Picture and sound of one moment lie less than this apart in a file.
_INTERLEAVED_SECONDS = 2.0

Span = tuple[float, float]


def open_media(path: Path) -> av.container.InputContainer:
    """Opens a media file.

    Raises:
      UnusableClip: it is missing, empty, no media file, or cut so that nothing can be decoded.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            # To open a pipe is to wait for who writes it.
            raise UnusableClip("not a regular file")
        if status.st_size == 0:
            raise UnusableClip("empty file (0 bytes)")
        return av.open(str(path), metadata_errors="replace")
    except FileNotFoundError:
        hint = "; with / instead of \\?" if "\\" in str(path) else ""
        raise UnusableClip(f"no such file{hint}") from None
    except IsADirectoryError:
        raise UnusableClip("a folder, not a media file") from None
    except PermissionError:
        raise UnusableClip("no permission to read it") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnusableClip(_no_media(path, error)) from None


def is_lfs_pointer(path: Path) -> bool:
    """Returns whether a file is what Git LFS leaves in the place of a file it did not fetch."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS_START)) == _LFS_START
    except (OSError, ValueError):
        return False


def _no_media(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS_START))
    except (OSError, ValueError) as unreadable:
        return f"cannot be read ({getattr(unreadable, 'strerror', None) or unreadable})"
    if head == _LFS_START:
        return LFS_POINTER
    # MP4 keeps its table of contents at the end, so half a file cannot be opened at all.
    if head[:3] == b"FLV" or head[4:8] == b"ftyp" or head[:4] in (b"RIFF", b"\x1aE\xdf\xa3"):
        return "truncated: starts like a media file, but its contents are cut off"
    return f"not a media file ({getattr(error, 'strerror', None) or error})"


@dataclass
class Streams:
    """The streams of a file that are decoded.

    video: the chosen one, None without.
    audio: those to choose from by their sound, the first choice first.
    notes: what was chosen where there was a choice.
    """

    video: av.VideoStream | None = None
    audio: list[av.AudioStream] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def chosen_streams(
    container: av.container.InputContainer, video: bool, audio: bool, asked: Sequence[str] = ()
) -> Streams:
    """Returns the streams to decode: the default ones, else the largest picture.

    Args:
      container: an open file.
      video, audio: whether to decode them.
      asked: streams that the user names, such as "v:1" or "a:0", counted from 0 in their kind.

    Raises:
      UnusableClip: a stream that is asked for is not there.
    """
    streams = Streams()
    # The cover picture of a sound file poses as a video stream.
    pictures = [s for s in container.streams.video if not _is(s, "attached_pic")]
    sounds = list(container.streams.audio)
    by_kind = {"v": pictures, "a": sounds}
    named = {}
    for word in asked:
        kind, _, number = word.partition(":")
        there = by_kind[kind]
        if int(number) >= len(there):
            names = ", ".join(f"{kind}:{n}" for n in range(len(there))) or "none of its kind"
            raise UnusableClip(f"no stream {word}; it has {names}")
        named[kind] = there[int(number)]
    if video and pictures:
        streams.video = named.get("v") or max(pictures, key=_picture_rank)
        # Clips are spread over processes already; frame threads only multiply the memory.
        streams.video.thread_count = 1
        if len(pictures) > 1:
            size = f"{streams.video.width}x{streams.video.height}"
            place = pictures.index(streams.video)
            text = f"{len(pictures)} pictures: took v:{place} ({size})"
            streams.notes.append(Note(text, "video"))
    if audio:
        ranked = sorted(sounds, key=lambda s: not _is(s, "default"))
        streams.audio = [named["a"]] if "a" in named else ranked
    return streams


def _is(stream: av.stream.Stream, disposition: str) -> bool:
    return bool(getattr(av.stream.Disposition, disposition) & stream.disposition)


def _picture_rank(stream: av.VideoStream) -> tuple[bool, int]:
    return _is(stream, "default"), (stream.width or 0) * (stream.height or 0)


class Decoder:
    """The frames of some streams of a file, in the order of the file.

    Iterating yields (stream, seconds, frame). Each stream's times increase; frames out of order
    are left out. Where the clock begins anew (files joined one after the other), it is carried on.

    Attributes:
      cut: why the file ends before its end, as "cut off after 1.3 s"; None where it does not.
    """

    def __init__(
        self, container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
    ) -> None:
        self.cut: str | None = None
        self._container, self._streams = container, list(streams)
        self._ends: dict[int, float] = {}  # of each stream, on the carried clock
        self._part: dict[int, int] = {}
        self._offsets = [0.0]

    @property
    def end(self) -> float:
        """Seconds at which the last frame ends; 0 before the first."""
        return max(self._ends.values(), default=0.0)

    def __iter__(self) -> Iterator[tuple[av.stream.Stream, float, av.VideoFrame | av.AudioFrame]]:
        if not self._streams:
            return
        damaged = False
        last: dict[int, float] = {}
        try:
            for packet in self._container.demux(self._streams):
                stream = packet.stream
                if packet.size:  # the packets after the last one are empty
                    damaged = packet.is_corrupt
                for frame in packet.decode():
                    seconds = self._seconds(stream, frame)
                    if stream.type == "video" and seconds <= last.get(stream.index, -1e9):
                        continue
                    last[stream.index] = seconds
                    yield stream, seconds, frame
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.cut = f"{self._after()} ({reason})"
        else:
            if damaged:
                self.cut = f"{self._after()} (the last packet is cut off)"

    def _after(self) -> str:
        return f"cut off after {self.end:.1f} s" if self._ends else "cut off at its start"

    def _seconds(self, stream: av.stream.Stream, frame: av.VideoFrame | av.AudioFrame) -> float:
        index = stream.index
        before = self._ends.get(index)
        part = self._part.setdefault(index, 0)
        step = _step(stream, frame)
        if frame.time is None:
            seconds = 0.0 if before is None else before
        else:
            seconds = float(frame.time) + self._offsets[part]
            if before is not None and seconds < before - _NEW_CLOCK_SECONDS:
                part = self._part[index] = part + 1
                if part == len(self._offsets):
                    # The first stream whose clock begins anew says where all go on.
                    self._offsets.append(self.end - float(frame.time))
                seconds = float(frame.time) + self._offsets[part]
        self._ends[index] = max(seconds + step, self._ends.get(index, seconds))
        return seconds


def within(
    decoder: Decoder, container: av.container.InputContainer, span: Span | None
) -> Iterator[tuple[av.stream.Stream, float, av.VideoFrame | av.AudioFrame]]:
    """Yields what a decoder gives of a span, with seconds from its start; None: all, as it is.

    Args:
      decoder: a new one of the container.
      container: an open file.
      span: (start, stop), seconds from the beginning of the file.
    """
    if span is None:
        yield from decoder
        return
    start, stop = span
    zero = (container.start_time or 0) / av.time_base
    if start > 0:
        # To the key frame before it; what is decoded on the way is left out.
        container.seek(int((zero + start) * av.time_base), backward=True)
    for stream, seconds, frame in decoder:
        at = seconds - zero
        if at >= stop + _INTERLEAVED_SECONDS:
            return
        if start <= at < stop:
            yield stream, at - start, frame


def _step(stream: av.stream.Stream, frame: av.VideoFrame | av.AudioFrame) -> float:
    """Returns seconds to the next frame."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    return float(1 / (stream.average_rate or stream.guessed_rate or 25))
