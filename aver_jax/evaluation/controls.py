"""Controls: the test clips with something taken away that a model is said to use.

A score alone does not say what a model looks at. Where it stays the same with the frames in another
order, time counts for nothing; where it stays the same with the sound of another clip, so does the
sound.

Controls change the integers of a batch on the host, before the front end, so that every model sees
them as it sees any clip. Labels, masks, rows and shapes stay as they are.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from aver_jax.errors import UserError
from aver_jax.evaluation.clip_batches import ClipBatches
from aver_jax.input import Batch, ClipShape
from aver_jax.modality import Modality

SEED = 0


@dataclasses.dataclass(frozen=True)
class Control:
    """One way to change the clips.

    Attributes:
      name: in tables, such as "frames reversed".
      detail: what is done, in a phrase.
      batches: the clips as they are -> the changed batches, in the same order.
    """

    name: str
    detail: str
    batches: Callable[[ClipBatches], Iterator[Batch]]


def controls_of(shape: ClipShape) -> list[Control]:
    """Returns the controls that apply to a model: those of the modalities that it reads.

    Args:
      shape: of the model's clips. With one frame there is no order of frames to change.
    """
    found = []
    if Modality.VIDEO in shape.modalities and shape.num_frames > 1:
        found += [
            _of_each("frames shuffled", "a random order of each clip's frames", shuffled),
            _of_each("frames reversed", "the last frame first", backwards),
            _of_each("one frame repeated", "the middle one, in place of all", frozen),
            _of_each("two frames repeated", "the first, then the middle one", two_frames),
        ]
    if Modality.AUDIO in shape.modalities:
        found += [
            _of_another("sound of another clip", Modality.AUDIO),
            _of_each("silence", "zeros, as long as the sound", silent),
        ]
    if Modality.VIDEO in shape.modalities:
        found.append(_of_another("face of another clip", Modality.VIDEO))
    return found


def shuffled(batch: Batch) -> Batch:
    """Returns the batch with each clip's frames in a random order, never in the given one.

    The order depends on the clip's row alone: it is the same in any batch, view and process.

    Args:
      batch: with `frames` uint8 [B,T,H,W,3] and `row` int32 [B]. `frame_times` stay ascending, as
        they say when a frame is shown, not when it was filmed.
    """
    frames = batch["frames"]
    orders = np.stack([_order_of(int(row), frames.shape[1]) for row in batch["row"]])
    return batch | {"frames": frames[np.arange(len(frames))[:, None], orders]}


def backwards(batch: Batch) -> Batch:
    """Returns the batch with the frames, uint8 [B,T,H,W,3], in reverse order."""
    return batch | {"frames": batch["frames"][:, ::-1]}


def frozen(batch: Batch) -> Batch:
    """Returns the batch with frame T // 2 of each clip, uint8 [B,T,H,W,3], in place of all."""
    frames = batch["frames"]
    middle = frames.shape[1] // 2
    return batch | {"frames": np.repeat(frames[:, middle : middle + 1], frames.shape[1], axis=1)}


def two_frames(batch: Batch) -> Batch:
    """Returns the batch with two frames of each clip, the first and T // 2, half of the time each.

    A network that subtracts what does not change sees nothing at all in one frame; in two it sees
    one difference, where the whole clip has its course.

    Args:
      batch: with `frames` uint8 [B,T,H,W,3].
    """
    frames = batch["frames"]
    middle = frames.shape[1] // 2
    places = np.where(np.arange(frames.shape[1]) < middle, 0, middle)
    return batch | {"frames": frames[:, places]}


def silent(batch: Batch) -> Batch:
    """Returns the batch with zeros for `audio`, int16 [B,S]; `audio_length` stays.

    A model that can do without sound is thus told that there is sound, and that it is silent.
    """
    return batch | {"audio": np.zeros_like(batch["audio"])}


def derangement(count: int, seed: int = SEED) -> np.ndarray:
    """Returns a random permutation that leaves nothing in its place.

    It is one cycle through all clips; every other clip is equally likely to be a clip's partner.

    Args:
      count: n.
      seed: fixes it.

    Returns:
      int64 [n].

    Raises:
      UserError: one clip or none, which has no other clip to be paired with.
    """
    check_clips(count)
    order = np.random.default_rng(seed).permutation(count)
    others = np.empty(count, np.int64)
    others[order] = np.roll(order, 1)
    return others


def check_clips(count: int) -> None:
    """Raises UserError if there are too few clips for the controls, which need two."""
    if count < 2:
        raise UserError(
            f"--controls needs at least 2 clips, since it swaps faces and sounds between clips, "
            f"and there is {count}; leave --controls out, or choose another split or fold"
        )


def _of_each(name: str, detail: str, change: Callable[[Batch], Batch]) -> Control:
    return Control(name, detail, lambda clips: map(change, clips))


def _of_another(name: str, modality: Modality) -> Control:
    """Returns a control that gives each clip the video or the sound of another one.

    Of any other clip, also one of the same label or actor: were those left out, the other clip
    would tell which label it is not.
    """

    def batches(clips: ClipBatches) -> Iterator[Batch]:
        return clips.with_others(modality, derangement(clips.num_clips))

    return Control(name, "of any other clip of the split, each used once", batches)


def _order_of(row: int, count: int) -> np.ndarray:
    rng = np.random.default_rng([SEED, row])
    order = rng.permutation(count)
    while count > 1 and np.array_equal(order, np.arange(count)):
        order = rng.permutation(count)
    return order
