"""Which clips train, validate and test: the published protocols, computed from the index.

Every choice that a protocol leaves to chance is made by a hash of the protocol's name, the fold
and the actor (or clip), so it is the same on every machine, library version and subset of clips.
"""

import csv
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib import resources

import numpy as np

from aver_jax.errors import UserError
from aver_jax.input.dataset import Dataset

#: Protocol name -> number of folds.
PROTOCOLS = {
    "crema_d_folds": 5,
    "crema_d_tenths": 10,
    "crema_d_random_90_5_5": 1,
    "ravdess_folds": 6,
    "ravdess_pairs": 12,
    "synthetic_fifths": 5,
    "synthetic_halves": 2,
    "folder": 5,
}

#: What is prepared -> the protocol that its shipped experiments take.
DEFAULT_PROTOCOLS = {
    "synthetic": "synthetic_fifths",
    "crema_d": "crema_d_folds",
    "ravdess": "ravdess_folds",
    "folder": "folder",
}

#: Whose label: the actor's intention or the raters' perception -> column of the index.
TARGETS = {
    "intended": "label",
    "voice": "voice_vote",
    "face": "face_vote",
    "multimodal": "multimodal_vote",
}

RANDOM_ACTORS_UNKNOWN = "random_actors_unknown"


@dataclasses.dataclass(frozen=True)
class Split:
    """The three parts of a dataset.

    Attributes:
      name: the protocol's name, to be printed with every number; "random_actors_unknown" instead
        of "folder" when no actor is known.
      fold: 1-based.
      target: "intended", "voice", "face" or "multimodal".
      train, validation, test: int32 [n] rows of the dataset, ascending, no row in two parts.
      labels: int32 [rows of the dataset], class index, -1 where dropped.
      ties: number of clips dropped because raters were tied.
      unknown: number of clips dropped because they have no label of this target.
    """

    name: str
    fold: int
    target: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    ties: int
    unknown: int

    @property
    def dropped(self) -> int:
        """Number of clips in no part for want of a label."""
        return self.ties + self.unknown

    def untrained(self, classes: Sequence[str]) -> list[str]:
        """Returns the classes that no training clip is of."""
        there = set(self.labels[self.train].tolist())
        return [name for number, name in enumerate(classes) if number not in there]

    @property
    def seen(self) -> np.ndarray:
        """Rows that a training on this split has seen: trained on, or chosen a checkpoint by."""
        return np.concatenate([self.train, self.validation])


def split(dataset: Dataset, protocol: str, fold: int, target: str = "intended") -> Split:
    """Returns the train, validation and test rows of one fold.

    Test: the clips of the fold's actors. Validation: all clips of a tenth of the other actors (at
    least 2), balanced by sex. `crema_d_random_90_5_5` and `folder` without actors deal clips.

    Args:
      dataset: its `index` and `classes` are read, never its records.
      protocol: a key of PROTOCOLS.
      fold: 1 ... PROTOCOLS[protocol].
      target: a key of TARGETS.

    Raises:
      UserError: unknown protocol, fold or target; actors that are not the protocol's; a part
        without clips.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    folds = PROTOCOLS[protocol]
    if not 1 <= fold <= folds:
        raise UserError(
            f"fold {fold} of protocol {protocol} does not exist; expected 1"
            + (f" to {folds}" if folds > 1 else "")
        )
    labels, ties, unknown = _labels(dataset, target)
    _check_actors(dataset, protocol)
    name, test, validation = _held_out(dataset, protocol, fold)

    kept = labels >= 0
    parts = {
        "train": np.flatnonzero(kept & ~test & ~validation).astype(np.int32),
        "validation": np.flatnonzero(kept & validation).astype(np.int32),
        "test": np.flatnonzero(kept & test).astype(np.int32),
    }
    for part, rows in parts.items():
        if not len(rows):
            actors = len(np.unique(dataset.index["actor"]))
            raise UserError(
                f"protocol {name}, fold {fold} leaves no {part} clips: {dataset.path} has "
                f"{len(dataset)} clips of {actors} actors ({ties + unknown} without "
                f"{_kind(target)} label); choose another fold or protocol, or prepare more actors"
            )
    return Split(name, fold, target, **parts, labels=labels, ties=ties, unknown=unknown)


def _held_out(dataset: Dataset, protocol: str, fold: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Returns (printed name, bool [rows] test, bool [rows] validation)."""
    actors = dataset.index["actor"]
    if protocol == "crema_d_random_90_5_5":
        return protocol, *_random_clips(dataset, protocol, fold, 0.05, 0.05)
    if protocol == "folder":
        nameless = int(np.sum(actors == ""))
        if nameless == len(actors):
            name = RANDOM_ACTORS_UNKNOWN
            return name, *_random_clips(dataset, name, fold, 0.2, 0.08)
        if nameless:
            raise UserError(
                f"{nameless} of the {len(actors)} clips of {dataset.path} have no actor; name the "
                "actor of every clip in the CSV (or of none), and prepare again"
            )
    sexes = dict(zip(actors.tolist(), dataset.index["sex"].tolist(), strict=True))
    fold_of = _FOLD_OF_ACTOR[protocol](sexes)
    tested = {actor for actor in sexes if fold_of[actor] == fold}
    others = {actor: sex for actor, sex in sexes.items() if actor not in tested}
    validated = _validation_actors(others, f"{protocol}:{fold}")
    return protocol, np.isin(actors, list(tested)), np.isin(actors, list(validated))


def _validation_actors(sexes: dict[str, str], key: str) -> set[str]:
    """Returns a tenth of the actors, at least 2, in turn from each sex, in a hash's order."""
    count = max(2, round(len(sexes) / 10))
    groups = [sorted(group, key=_hash_order(key)) for group in _by_sex(sexes)]
    turns = [group[turn] for turn in range(len(sexes)) for group in groups if turn < len(group)]
    return set(turns[:count])


def _random_clips(
    dataset: Dataset, name: str, fold: int, test_share: float, validation_share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Splits clips in a hash's order: the fold's consecutive share tests, the next validates."""
    order = np.array(
        sorted(
            range(len(dataset)), key=lambda row: _hash_order(name)(dataset.index["clip_id"][row])
        )
    )
    edges = [(fold - 1) * test_share, fold * test_share]
    first, last = (round(edge * len(order)) for edge in edges)
    # The next clips after the fold's own, around the end.
    after = np.roll(order, -last)
    test = np.zeros(len(order), bool)
    test[order[first:last]] = True
    validation = np.zeros(len(order), bool)
    validation[after[: round(validation_share * len(order))]] = True
    return test, validation


def _hash_order(key: str) -> Callable[[str], bytes]:
    return lambda item: hashlib.sha256(f"{key}:{item}".encode()).digest()


def _by_sex(sexes: dict[str, str]) -> list[list[str]]:
    """Returns actors sorted within each sex; the larger group first, unknown sex last."""
    groups: dict[str, list[str]] = {}
    for actor in sorted(sexes):
        groups.setdefault(sexes[actor], []).append(actor)
    names = sorted(groups, key=lambda sex: (sex == "", -len(groups[sex]), sex))
    return [groups[name] for name in names]


def _dealt(folds: int) -> Callable[[dict[str, str]], dict[str, int]]:
    """Deals sorted actors like cards, one sex after the other, without a new start between."""

    def fold_of_actor(sexes: dict[str, str]) -> dict[str, int]:
        actors = [actor for group in _by_sex(sexes) for actor in group]
        return {actor: position % folds + 1 for position, actor in enumerate(actors)}

    return fold_of_actor


def _published(table: str) -> dict[str, int]:
    text = resources.files("aver_jax.input").joinpath("folds", f"{table}.csv").read_text("utf-8")
    return {row["actor"]: int(row["test_fold"]) for row in csv.DictReader(text.splitlines())}


_FOLD_OF_ACTOR: dict[str, Callable[[dict[str, str]], dict[str, int]]] = {
    "crema_d_folds": lambda _: _published("crema_d_folds"),
    "ravdess_folds": lambda _: _published("ravdess_folds"),
    # Actors (1,2) ... (23,24): one man and one woman (thesis 5.3).
    "ravdess_pairs": lambda sexes: {actor: (int(actor) + 1) // 2 for actor in sexes},
    "crema_d_tenths": _dealt(10),
    "synthetic_fifths": _dealt(5),
    "synthetic_halves": _dealt(2),
    "folder": _dealt(5),
}


def _check_actors(dataset: Dataset, protocol: str) -> None:
    """Refuses a protocol made for another dataset's actors."""
    for prefix in ("crema_d", "ravdess"):
        if protocol.startswith(prefix):
            known = _published(f"{prefix}_folds")
            foreign = sorted(set(dataset.index["actor"].tolist()) - known.keys())
            if foreign:
                others = [name for name in PROTOCOLS if not name.startswith(prefix)]
                raise UserError(
                    f"{len(foreign)} actors of {dataset.path} are not in protocol {protocol} "
                    f"({_some(foreign)}); it knows {min(known)} to {max(known)}: "
                    f"choose another, such as {_some(others)}"
                )


def _kind(target: str) -> str:
    return f"an {target}" if target == "intended" else f"a {target}"


def _labels(dataset: Dataset, target: str) -> tuple[np.ndarray, int, int]:
    """Returns (int32 [rows] class index or -1, number of ties, number of unknowns)."""
    if target not in TARGETS:
        raise UserError(f"unknown target {target!r}; expected one of {', '.join(TARGETS)}")
    names = dataset.index[TARGETS[target]]
    ties = np.strings.find(names, ":") >= 0
    unknown = names == ""
    number_of = {name: number for number, name in enumerate(dataset.classes)}
    strange = sorted(set(names[~ties & ~unknown].tolist()) - number_of.keys())
    if strange:
        raise UserError(
            f"{dataset.path}/index.csv has the {target} labels {_some(strange)}, expected "
            f"{', '.join(dataset.classes)}; prepare the dataset again"
        )
    if np.all(ties | unknown):
        raise UserError(
            f"no clip of {dataset.path} has {_kind(target)} label; "
            "use target intended, or a dataset with crowd votes"
        )
    labels = np.array([number_of.get(name, -1) for name in names.tolist()], np.int32)
    return labels, int(ties.sum()), int(unknown.sum())


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
