"""The plan of a run: how many steps, and what is done after each dispatch."""

import dataclasses
from collections.abc import Iterator

from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The steps of one dispatch, and what follows it.

    Attributes:
      first, last: its steps, counted from 1.
      logged: those whose metrics are written, in order.
      validates: whether a validation and a checkpoint follow.
      is_final: whether the run ends with it.
    """

    first: int
    last: int
    logged: tuple[int, ...]
    validates: bool
    is_final: bool

    @property
    def size(self) -> int:
        """Number of steps."""
        return self.last - self.first + 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """The length of a run and its rhythm, in steps.

    Attributes:
      per_epoch: steps of an epoch.
      total: steps of the run.
      per_validation: steps between validations.
      per_dispatch: steps that are dispatched together.
      per_log: steps between lines of the log.
    """

    per_epoch: int
    total: int
    per_validation: int
    per_dispatch: int = 1
    per_log: int = 1

    @classmethod
    def from_config(cls, config: ConfigDict, per_epoch: int) -> "Plan":
        """Returns the plan of an experiment whose epochs have so many steps."""
        return cls(
            per_epoch=per_epoch,
            total=max(1, round(config.epochs * per_epoch)),
            per_validation=max(1, round(config.evaluation.every_epochs * per_epoch)),
            per_dispatch=config.steps_per_dispatch,
            per_log=config.log_every_steps,
        )

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Yields the dispatches that are left after `start` steps.

        None goes past a validation or the end. There are two sizes, `per_dispatch` and 1, so that
        two functions are compiled.
        """
        done = start
        while done < self.total:
            validation = (done // self.per_validation + 1) * self.per_validation
            left = min(validation, self.total) - done
            last = done + (self.per_dispatch if self.per_dispatch <= left else 1)
            steps = range(done + 1, last + 1)
            yield Chunk(
                first=done + 1,
                last=last,
                logged=tuple(n for n in steps if n == self.total or n % self.per_log == 0),
                validates=last == self.total or last % self.per_validation == 0,
                is_final=last == self.total,
            )
            done = last
