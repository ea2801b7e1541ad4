"""The frames, their times and the sound of one clip."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from data_prep.audible import LEAST_AUDIBLE_SECONDS, SAMPLE_RATE, audible_seconds
from data_prep.errors import MissingModality, UnusableClip
from data_prep.media.canvas import Canvas, Size, fitted
from data_prep.media.container import Decoder, Span, chosen_streams, open_media, within
from data_prep.media.sound import Sound
from data_prep.wording import Note

# A clip longer than this is a recording, not a clip: its frames and sound would not fit a record.
MAX_SECONDS = 120.0
# Decoded frames are kept up to this size; a larger clip is decoded again whenever it is read.
HELD_BYTES = 320 << 20
# Frames so large that a second of them would not fit are not held at all.
_FEWEST_HELD = 24
# A clip whose first frame comes later than this on its clock was cut out of something longer.
_LATE_SECONDS = 1.0

_EMPTY = np.zeros(0, np.int16)
_CUT = "ffmpeg -i FILE -f segment -segment_time 60 -c copy part%03d.mkv"


@dataclass(frozen=True)
class Media:
    """One decoded clip.

    frames: sequence of F uint8 arrays [H, W, 3], RGB, upright, of square pixels and one size (may
        decode anew while iterated; read it in order).
    timestamps: float32 [F], seconds, increasing; time 0 is the first sample or the first frame,
        whichever comes first.
    pcm: int16 [S], mono, 16 kHz; sample i sounds at i / 16000 s of the timestamps. Empty when no
        sound was asked for, or when it is absent or silent and not required.
    notes: what was chosen or changed that a person should know, a line each.
    """

    frames: Sequence[np.ndarray]
    timestamps: np.ndarray
    pcm: np.ndarray
    notes: tuple[Note, ...] = ()


def decode(
    path: str | Path,
    video: bool = True,
    audio: bool = True,
    *,
    require: Sequence[str] | None = None,
    audio_path: str | Path | None = None,
    streams: Sequence[str] = (),
    keep_truncated: bool = False,
    span: Span | None = None,
    held_bytes: int = HELD_BYTES,
) -> Media:
    """Decodes the pictures and the sound of a media file.

    Of several streams the default one is taken, else the largest picture; of sound that is silent
    the next. Times are those of the decoded frames: headers are often wrong (CREMA-D's FLV states
    no duration and a made-up frame rate). Sound is resampled to 16 kHz mono and padded with
    silence at its start where the video starts first, so that its sample 0 lies at time 0.

    Args:
      path: media file.
      video: decode the pictures.
      audio: decode the sound.
      require: which of "video" and "audio" must be there; by default whatever is decoded. A
        stream that is not required and not there gives an empty array.
      audio_path: sound file that starts with the clip, for clips without sound, or a silent one.
      streams: which streams to take, such as "v:1" or "a:0".
      keep_truncated: take what can be decoded of a file that is cut off, with a note.
      span: (start, stop), seconds from the beginning of the file, at most 120 apart: only what lies
        between them, and the times of what is given begin at `start`.
      held_bytes: frames are held in memory up to this size, and decoded again beyond it.

    Raises:
      UnusableClip: the file is missing, empty, no media file, truncated, or longer than 120 s.
      MissingModality: it lacks a stream that is required, or its sound is silent.
    """
    path = Path(path)
    require = [m for m, on in (("video", video), ("audio", audio)) if on and _in(m, require)]
    scan = _scan(path, video, audio, streams, held_bytes, span)
    if scan.cut is not None and not (keep_truncated and (scan.times or scan.samples.size)):
        raise UnusableClip(f"truncated: {scan.cut}")
    notes = [*scan.notes, *([Note(scan.cut)] if scan.cut else [])]
    samples, sample_start = scan.samples, scan.sample_start
    heard = audible_seconds(samples)
    if audio and heard < LEAST_AUDIBLE_SECONDS and audio_path is not None:
        try:
            samples = _scan(Path(audio_path), False, True, (), 0).samples
        except UnusableClip as reason:
            raise UnusableClip(f"its sound file {Path(audio_path).name}: {reason}") from None
        # A separate sound file begins where the clip begins: at the zero of the clip's clock, or,
        # where that clock ran long before (a cut of a recording), at the first frame.
        late = scan.times and scan.times[0] > _LATE_SECONDS
        sample_start = scan.times[0] if late else 0.0
        heard = audible_seconds(samples)
    if "video" in require:
        _check_video(path, scan, audio)
    if samples.size and heard < LEAST_AUDIBLE_SECONDS:
        reason = f"silent sound ({heard:.2f} s that can be heard)"
        if "audio" in require:
            raise MissingModality(reason)
        notes.append(Note(reason, "audio"))
        samples = _EMPTY
    if "audio" in require and not samples.size:
        reason = "the sound stream holds no sample that can be decoded"
        raise MissingModality(reason if scan.has_audio else "no audio (no audio stream)")

    starts = scan.times[:1] + ([sample_start] if samples.size else [])
    origin = min(starts, default=0.0) if span is None else 0.0
    lead = round((sample_start - origin) * SAMPLE_RATE) if samples.size else 0
    return Media(
        frames=scan.frames
        if scan.frames is not None
        else _StreamedFrames(path, scan, streams, span),
        timestamps=(np.asarray(scan.times, np.float64) - origin).astype(np.float32),
        pcm=np.concatenate([np.zeros(lead, np.int16), samples]),
        notes=tuple(notes),
    )


def _in(modality: str, require: Sequence[str] | None) -> bool:
    return require is None or modality in require


@dataclass
class _Scan:
    """What one pass over a file gave; `frames` is None when they were too large to hold."""

    has_video: bool
    has_audio: bool
    notes: list[Note]
    times: list[float] = field(default_factory=list)
    frames: list[np.ndarray] | None = field(default_factory=list)
    size: Size = (0, 0)
    samples: np.ndarray = field(default_factory=lambda: _EMPTY)
    sample_start: float = 0.0
    cut: str | None = None


def recording_seconds(path: str | Path) -> float:
    """Returns the length of a recording, by the time stamps of its packets; nothing is decoded."""
    begin, end = math.inf, 0.0
    with open_media(Path(path)) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.stream.type in ("video", "audio"):
                first = float(packet.pts * packet.time_base)
                begin = min(begin, first)
                end = max(end, first + float((packet.duration or 0) * packet.time_base))
    return max(0.0, end - begin) if end else 0.0


def _scan(
    path: Path,
    video: bool,
    audio: bool,
    asked: Sequence[str],
    held_bytes: int,
    span: Span | None = None,
) -> _Scan:
    with open_media(path) as container:
        streams = chosen_streams(container, video, audio, asked)
        scan = _Scan(streams.video is not None, bool(streams.audio), streams.notes)
        canvas = Canvas(streams.video) if streams.video else None
        sounds = {stream.index: Sound() for stream in streams.audio}
        decoder = Decoder(container, [*([streams.video] if canvas else []), *streams.audio])
        sizes: dict[Size, None] = {}
        held = 0
        begin = math.inf
        for stream, seconds, frame in within(decoder, container, span):
            # Not every clock starts at zero.
            begin = min(begin, seconds)
            if seconds - begin > MAX_SECONDS:
                raise UnusableClip(
                    f"longer than {MAX_SECONDS:.0f} s: cut it into clips, as by {_CUT}"
                )
            if isinstance(frame, av.AudioFrame):
                sounds[stream.index].add(seconds, frame)
                continue
            scan.times.append(seconds)
            image = canvas(frame)
            sizes[image.shape[:2]] = None
            if scan.frames is not None:
                scan.frames.append(image)
                held += image.nbytes
                if held > held_bytes or image.nbytes > held_bytes / _FEWEST_HELD:
                    scan.frames = None
        scan.cut = decoder.cut
        _choose_sound(scan, streams.audio, sounds)
        _bring_to_one_size(scan, list(sizes))
        scan.notes += [Note(text, "video") for text in canvas.notes] if canvas else []
        used = [s for s in (streams.video, *streams.audio) if s is not None]
        stated = _stated_seconds(container, used)
        # A cut between two packets leaves no other trace than an early end. Matroska states the
        # time of the end; the length, which others state, is never more than that.
        missing = stated - decoder.end if span is None else 0.0
        if scan.cut is None and streams.video is not None and missing > 0.4 + 0.05 * stated:
            scan.cut = f"cut off after {decoder.end:.1f} s of the stated {stated:.1f} s"
    return scan


def _choose_sound(scan: _Scan, streams: Sequence[av.AudioStream], sounds: dict[int, Sound]) -> None:
    """Takes the first choice among the sounds that can be heard, or the first."""
    found = [(stream.index, sounds[stream.index].samples()) for stream in streams]
    if not found:
        return
    heard = [f for f in found if audible_seconds(f[1]) >= LEAST_AUDIBLE_SECONDS]
    index, scan.samples = (heard or found)[0]
    scan.sample_start = sounds[index].start
    if len(found) > 1:
        places = sorted(place for place, _ in found)
        scan.notes.append(Note(f"{len(found)} sounds: took a:{places.index(index)}", "audio"))


def _bring_to_one_size(scan: _Scan, sizes: Sequence[Size]) -> None:
    """Brings all frames to the size of the largest."""
    if not sizes:
        return
    scan.size = max(sizes, key=lambda size: size[0] * size[1])
    if len(sizes) > 1:
        words = [f"{width}x{height}" for height, width in (*sizes, scan.size)]
        text = f"pictures of {', '.join(words[:-1])}: brought to {words[-1]}"
        scan.notes.append(Note(text, "video"))
        if scan.frames is not None:
            scan.frames = [fitted(image, scan.size) for image in scan.frames]


def _check_video(path: Path, scan: _Scan, audio: bool) -> None:
    """Raises MissingModality unless there are two frames."""
    if not scan.has_video:
        has_sound = scan.has_audio
        if not audio:
            with open_media(path) as container:
                has_sound = bool(container.streams.audio)
        raise MissingModality(f"no video stream ({'sound only' if has_sound else 'nor sound'})")
    if not scan.times:
        raise MissingModality("the video stream holds no frame that can be decoded")
    if len(scan.times) < 2:
        raise MissingModality("zero length: a single video frame (at least 2 are needed)")


def _stated_seconds(
    container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
) -> float:
    """Returns the length of streams as the file states it; 0 if it states none for them."""
    if all(stream.duration for stream in streams):
        return max((float(s.duration * s.time_base) for s in streams), default=0.0)
    # That of the whole file counts the streams that are not decoded as well.
    whole = len(streams) == len(container.streams)
    return (container.duration or 0) / av.time_base if whole else 0.0


def _read_frames(
    path: Path, size: Size, asked: Sequence[str], span: Span | None
) -> Iterator[np.ndarray]:
    # Knows the path alone: an iterator that held the sequence which holds it would keep a decoder
    # with its frames (100 MB at 4K) until the garbage collector comes round.
    with open_media(path) as container:
        stream = chosen_streams(container, True, False, asked).video
        canvas = Canvas(stream, size)
        for _, _, frame in within(Decoder(container, [stream]), container, span):
            yield canvas(frame)


class _StreamedFrames(Sequence):
    """Frames of a clip too large to hold: decoded again on every pass, one at a time."""

    def __init__(self, path: Path, scan: _Scan, asked: Sequence[str], span: Span | None) -> None:
        self._path, self._size, self._asked, self._span = path, scan.size, tuple(asked), span
        self._count = len(scan.times)
        self._next, self._iterator = 0, iter(())
        self._current: np.ndarray | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        return _read_frames(self._path, self._size, self._asked, self._span)

    def __getitem__(self, index: int) -> np.ndarray:
        if not -self._count <= index < self._count:
            raise IndexError(f"frame {index} of {self._count}")
        index %= self._count
        if self._current is None or index < self._next - 1:
            self._next, self._iterator = 0, iter(self)
        while self._next <= index:
            self._current = next(self._iterator)
            self._next += 1
        return self._current
