"""Media files in and out: the frames, their times and the sound of one clip (PyAV)."""

import math
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_prep.errors import MissingModality, UnusableClip

SAMPLE_RATE = 16_000  # Hz
# A clip longer than this is a recording, not a clip: its frames and sound would not fit a record.
MAX_SECONDS = 120.0
# Decoded frames are kept up to this size; a larger clip is decoded again whenever it is read.
HELD_BYTES = 320 << 20
# Frames so large that a second of them would not fit are not held at all.
_FEWEST_HELD = 24
# Sound that is missing for longer than this inside a clip is replaced by silence.
_GAP_SECONDS = 0.05
# A clip whose first frame comes later than this on its clock was cut out of something longer.
_LATE_SECONDS = 1.0


@dataclass(frozen=True)
class Media:
    """One decoded clip.

    frames: sequence of F uint8 arrays [H, W, 3], RGB, upright (may decode anew while iterated;
        read it in order).
    timestamps: float32 [F], seconds, increasing; time 0 is the first sample or the first frame,
        whichever comes first.
    pcm: int16 [S], mono, 16 kHz; sample i sounds at i / 16000 s of the timestamps. Empty when no
        sound was asked for, or when it is absent and not required.
    """

    frames: Sequence[np.ndarray]
    timestamps: np.ndarray
    pcm: np.ndarray


def decode(
    path: str | Path,
    video: bool = True,
    audio: bool = True,
    *,
    require: Sequence[str] | None = None,
    audio_path: str | Path | None = None,
    held_bytes: int = HELD_BYTES,
) -> Media:
    """Decodes the first video stream and the first sound stream of a media file.

    Times are those of the decoded frames: headers are often wrong (CREMA-D's FLV states no
    duration and a made-up frame rate). Sound is resampled to 16 kHz mono and padded with silence
    at its start where the video starts first, so that its sample 0 lies at time 0.

    Args:
      path: media file.
      video: decode the video stream.
      audio: decode the sound.
      require: which of "video" and "audio" must be there; by default whatever is decoded. A
        stream that is not required and not there gives an empty array.
      audio_path: sound file that starts with the clip, for clips that carry no sound themselves.
      held_bytes: frames are held in memory up to this size, and decoded again beyond it.

    Raises:
      UnusableClip: the file is missing, empty, no media file, truncated, or longer than 120 s.
      MissingModality: it lacks a stream that is required.
    """
    path = Path(path)
    require = [m for m, on in (("video", video), ("audio", audio)) if on and _in(m, require)]
    scan = _scan(path, video, audio, held_bytes)
    samples, sample_start = scan.samples, scan.sample_start
    if audio and not samples.size and audio_path is not None:
        try:
            samples = _scan(Path(audio_path), False, True, 0).samples
        except UnusableClip as reason:
            raise UnusableClip(f"its sound file {Path(audio_path).name}: {reason}") from None
        # A separate sound file begins where the clip begins: at the zero of the clip's clock, or,
        # where that clock ran long before (a cut of a recording), at the first frame.
        late = scan.times and scan.times[0] > _LATE_SECONDS
        sample_start = scan.times[0] if late else 0.0
    if "video" in require:
        if not scan.has_video:
            has_sound = _scan(path, False, True, 0).has_audio if not audio else scan.has_audio
            raise MissingModality(f"no video stream ({'sound only' if has_sound else 'nor sound'})")
        if not scan.times:
            raise MissingModality("the video stream holds no frame that can be decoded")
        if len(scan.times) < 2:
            raise MissingModality("zero length: a single video frame (at least 2 are needed)")
    if "audio" in require and not samples.size:
        reason = "the sound stream holds no sample that can be decoded"
        raise MissingModality(reason if scan.has_audio else "no audio (no audio stream)")

    starts = scan.times[:1] + ([sample_start] if samples.size else [])
    origin = min(starts, default=0.0)
    lead = round((sample_start - origin) * SAMPLE_RATE) if samples.size else 0
    return Media(
        frames=scan.frames if scan.frames is not None else _StreamedFrames(path, len(scan.times)),
        timestamps=(np.asarray(scan.times, np.float64) - origin).astype(np.float32),
        pcm=np.concatenate([np.zeros(lead, np.int16), samples]),
    )


def _in(modality: str, require: Sequence[str] | None) -> bool:
    return require is None or modality in require


@dataclass
class _Scan:
    """What one pass over a file gave; `frames` is None when they were too large to hold."""

    has_video: bool
    has_audio: bool
    times: list[float]
    frames: list[np.ndarray] | None
    samples: np.ndarray
    sample_start: float


def _scan(path: Path, video: bool, audio: bool, held_bytes: int) -> _Scan:
    with _open(path) as container:
        video_stream = _video_stream(container) if video else None
        audio_stream = container.streams.audio[0] if audio and container.streams.audio else None
        scan = _Scan(video_stream is not None, audio_stream is not None, [], [], _EMPTY, 0.0)
        sound = _Sound()
        held = 0
        begin, end = math.inf, 0.0
        for seconds, frame in _decoded(container, video_stream, audio_stream):
            # Not every clock starts at zero.
            begin, end = min(begin, seconds), max(end, seconds)
            if end - begin > MAX_SECONDS:
                raise UnusableClip(f"longer than {MAX_SECONDS:.0f} s: cut it into clips first")
            if isinstance(frame, av.AudioFrame):
                sound.add(seconds, frame)
                continue
            scan.times.append(seconds)
            if scan.frames is not None:
                scan.frames.append(_upright_rgb(frame))
                held += scan.frames[-1].nbytes
                if held > held_bytes or scan.frames[-1].nbytes > held_bytes / _FEWEST_HELD:
                    scan.frames = None
        scan.samples, scan.sample_start = sound.samples(), sound.start
        stated = _stated_seconds(container, [s for s in (video_stream, audio_stream) if s])
        # A cut between two packets leaves no other trace than an early end. Matroska states the
        # time of the end; the length, which others state, is never more than that.
        if video_stream is not None and end < 0.75 * stated - 0.5:
            raise UnusableClip(f"truncated: {end:.1f} s of the stated {stated:.1f} s")
    return scan


def _stated_seconds(container: av.container.InputContainer, streams: list[av.stream.Stream]):
    """Returns the length of streams as the file states it; 0 if it states none for them."""
    if all(stream.duration for stream in streams):
        return max((float(s.duration * s.time_base) for s in streams), default=0.0)
    # That of the whole file counts the streams that are not decoded as well.
    whole = len(streams) == len(container.streams)
    return (container.duration or 0) / av.time_base if whole else 0.0


_EMPTY = np.zeros(0, np.int16)


def _open(path: Path) -> av.container.InputContainer:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            # To open a pipe is to wait for who writes it.
            raise UnusableClip("not a regular file")
        if status.st_size == 0:
            raise UnusableClip("empty file (0 bytes)")
        return av.open(str(path), metadata_errors="replace")
    except FileNotFoundError:
        raise UnusableClip("no such file") from None
    except IsADirectoryError:
        raise UnusableClip("a folder, not a media file") from None
    except PermissionError:
        raise UnusableClip("no permission to read it") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnusableClip(_no_media(path, error)) from None


def _no_media(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except (OSError, ValueError) as unreadable:
        return f"cannot be read ({getattr(unreadable, 'strerror', None) or unreadable})"
    # MP4 keeps its table of contents at the end, so half a file cannot be opened at all.
    if head[:3] == b"FLV" or head[4:8] == b"ftyp" or head[:4] in (b"RIFF", b"\x1aE\xdf\xa3"):
        return "truncated: starts like a media file, but its contents are cut off"
    return f"not a media file ({getattr(error, 'strerror', None) or error})"


def _video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    for stream in container.streams.video:
        # The cover picture of a sound file poses as a video stream.
        if av.stream.Disposition.attached_pic in stream.disposition:
            continue
        # Clips are spread over processes already; frame threads only multiply the memory.
        stream.thread_count = 1
        return stream
    return None


def _decoded(
    container: av.container.InputContainer,
    video: av.VideoStream | None,
    audio: av.AudioStream | None,
) -> Iterator[tuple[float, av.VideoFrame | av.AudioFrame]]:
    """Yields (seconds, frame); each stream's times increase, video frames out of order are left."""
    streams = [stream for stream in (video, audio) if stream is not None]
    if not streams:
        return
    last: dict[int, float] = {}
    try:
        for packet in container.demux(streams):
            if packet.is_corrupt:
                raise UnusableClip("truncated: the last packet is cut off")
            stream = packet.stream
            for frame in packet.decode():
                before = last.get(stream.index)
                seconds = None if frame.time is None else float(frame.time)
                if seconds is None:
                    seconds = 0.0 if before is None else before + _step(stream, frame)
                if before is not None and seconds <= before and stream is video:
                    continue
                last[stream.index] = seconds
                yield seconds, frame
    except (av.FFmpegError, OSError, ValueError) as error:
        after = max(last.values(), default=None)
        reason = getattr(error, "strerror", None) or str(error)
        at = "at its start" if after is None else f"after {after:.1f} s"
        raise UnusableClip(f"damaged or truncated {at} ({reason})") from None


def _step(stream: av.VideoStream | av.AudioStream, frame: av.VideoFrame | av.AudioFrame) -> float:
    """Returns seconds to the next frame, for the rare streams that carry no times."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    return float(1 / (stream.average_rate or stream.guessed_rate or 25))


def _upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    # The display matrix turns counter-clockwise in degrees, as numpy does.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class _Sound:
    """Collects decoded sound as 16 kHz mono, silence where packets are missing."""

    def __init__(self) -> None:
        self.start = 0.0
        self._chunks: list[np.ndarray] = []
        self._count = 0
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def add(self, seconds: float, frame: av.AudioFrame) -> None:
        if not self._chunks:
            self.start = seconds
        missing = round((seconds - self.start) * SAMPLE_RATE) - self._count
        if missing > _GAP_SECONDS * SAMPLE_RATE:
            self._append(np.zeros(missing, np.int16))
        # Times are kept by counting samples; the resampler must not act on them as well.
        frame.pts = None
        for resampled in self._resampler.resample(frame):
            self._append(resampled.to_ndarray().reshape(-1))

    def samples(self) -> np.ndarray:
        if not self._chunks:
            return _EMPTY
        for resampled in self._resampler.resample(None):
            self._append(resampled.to_ndarray().reshape(-1))
        return np.concatenate(self._chunks)

    def _append(self, chunk: np.ndarray) -> None:
        self._chunks.append(chunk)
        self._count += len(chunk)


def _read_frames(path: Path) -> Iterator[np.ndarray]:
    # Knows the path alone: an iterator that held the sequence which holds it would keep a decoder
    # with its frames (100 MB at 4K) until the garbage collector comes round.
    with _open(path) as container:
        for _, frame in _decoded(container, _video_stream(container), None):
            yield _upright_rgb(frame)


class _StreamedFrames(Sequence):
    """Frames of a clip too large to hold: decoded again on every pass, one at a time."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._next, self._iterator = 0, iter(())
        self._current: np.ndarray | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[np.ndarray]:
        return _read_frames(self._path)

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


def write_clip(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    pcm: np.ndarray,
    sample_rate: int,
    *,
    timestamps: Sequence[float] | None = None,
    crf: int = 18,
) -> None:
    """Writes an MP4 file with H.264 video (yuv420p) and AAC sound.

    Frames of odd height or width are padded by repeating the last row or column, as yuv420p
    needs even sizes.

    Args:
      path: file to write (`.mp4`).
      frames: uint8 [H, W, 3], RGB, all of one size.
      fps: frames per second; the encoder's nominal rate when `timestamps` are given.
      pcm: int16 [S], mono; empty for a clip without a sound stream.
      sample_rate: samples per second of `pcm`.
      timestamps: seconds of every frame, increasing; by default frame i is at i / fps.
      crf: H.264 quality, 0 (lossless) to 51.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        video.pix_fmt = "yuv420p"
        # "veryfast" weighs macroblocks by a search whose results differ from call to call.
        video.options = {"crf": str(crf), "preset": "superfast"}
        # One thread makes the file the same on every machine.
        video.codec_context.thread_count = 1
        video.codec_context.time_base = Fraction(1, 90_000)
        audio = None
        if len(pcm):
            audio = container.add_stream("aac", rate=sample_rate, layout="mono")
            audio.bit_rate = 96_000
        for index, image in enumerate(frames):
            height, width = image.shape[:2]
            if height % 2 or width % 2:
                image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if index == 0:
                video.height, video.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            seconds = index / fps if timestamps is None else float(timestamps[index])
            frame.pts = round(seconds * 90_000)
            frame.time_base = Fraction(1, 90_000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            block = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(pcm, np.int16).reshape(1, -1), format="s16", layout="mono"
            )
            block.sample_rate = sample_rate
            block.pts = 0
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
