"""What a compiled program costs on a chip: memory, FLOPs, bytes, time at the limits, and where."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from aver_jax.chips.catalog import Target
from aver_jax.chips.collectives import Collectives, collectives
from aver_jax.chips.hlo.costs import Cost, costs
from aver_jax.chips.hlo.flops import TPU_KERNEL
from aver_jax.chips.hlo.text import parse


@dataclasses.dataclass(frozen=True)
class Source:
    """One line of the project's code, and what its instructions cost; of one device.

    Attributes:
      place: "file.py:line", "" where the compiler does not say.
      path: the JAX operation of the costliest of them, shortened.
      what: the costliest one's operations.
      seconds, bytes, flops: of all of them.
    """

    place: str
    path: str
    what: str
    seconds: float
    bytes: float
    flops: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A bound (GPU) or the compiler's estimate (TPU) of one run of a program; of one device.

    Attributes:
      kind: "bound" or "estimate".
      clips: of the whole batch.
      seconds: the sum over kernels of max(bytes / copy rate, FLOPs / peak) on a GPU, the compiler's
        cycles on a TPU; without collectives.
      floor: seconds of the needed FLOPs at the peak.
      needed, done: FLOPs; done includes recomputation, and both only products.
      bytes: read and written.
      memory: bytes by use: parameters, optimizer, batch, padding, "activations and temporaries",
        "results and program".
      fits: whether they fit into the device.
      sources: the costliest first.
      collectives: the slowest first.
      uncounted: kernels of whose FLOPs, cycles or loop lengths the text says nothing.
    """

    kind: str
    clips: int
    seconds: float
    floor: float
    needed: float
    done: float
    bytes: float
    memory: Mapping[str, int]
    fits: bool
    sources: Sequence[Source]
    collectives: Sequence[Collectives]
    uncounted: int

    @property
    def link_seconds(self) -> float:
        """What the collectives need, one after the other."""
        return sum(each.seconds for each in self.collectives)

    @property
    def clips_per_second(self) -> tuple[float, float]:
        """Of all devices: where no collective hides behind other work, and where all do."""
        both = self.seconds + self.link_seconds
        return self.clips / both, self.clips / max(self.seconds, self.link_seconds)

    @property
    def mfu(self) -> float:
        """Needed FLOPs at the peak over the time, the share of the peak (Chowdhery et al. 2022)."""
        return self.floor / (self.seconds + self.link_seconds)


def estimate(
    compiled: jax.stages.Compiled,
    target: Target,
    needed: float,
    clips: int,
    dtype: str,
    held: Mapping[str, int],
    ours=lambda file: "site-packages" not in file,
    kernels: Mapping[str, float] | None = None,
) -> Estimate:
    """Returns what a program costs.

    Args:
      compiled: for the target's devices.
      target: the chip and how many.
      needed: FLOPs of the whole batch (`programs.needed_flops`).
      clips: of the whole batch.
      dtype: of the model's products.
      held: bytes by use, as `programs.lowered` gives them.
      ours: says of a source file whether its lines are worth naming.
      kernels: cycles of a TPU's Pallas kernels (`kernel_schedules.kernel_cycles`).
    """
    chip, module = target.chip, parse(compiled.as_text())
    found = costs(module, ours)
    rows = [_with_cycles(row, kernels or {}) for row in found.rows]
    seconds = {row.name: _seconds(row, target, dtype) for row in rows}
    needed = needed / target.devices
    memory = _memory(compiled, held)
    return Estimate(
        kind="estimate" if chip.clock else "bound",
        clips=clips,
        seconds=sum(seconds.values()),
        floor=needed / chip.matmul[dtype],
        needed=needed,
        done=sum(row.flops or 0 for row in rows),
        bytes=sum(row.bytes for row in rows),
        memory=memory,
        fits=sum(memory.values()) <= chip.memory,
        sources=_sources(rows, seconds),
        collectives=collectives(rows, target.devices, chip.link),
        uncounted=sum(_unknown(row, target) for row in rows) + len(found.unknown_loops),
    )


def _with_cycles(row: Cost, kernels: Mapping[str, float]) -> Cost:
    """Returns the row of a Pallas kernel with the cycles of its schedule, any other as it is."""
    if row.kind != TPU_KERNEL or row.shape not in kernels:
        return row
    return dataclasses.replace(row, cycles=row.runs * kernels[row.shape])


def _seconds(row: Cost, target: Target, dtype: str) -> float:
    chip = target.chip
    if row.klass == "collective":
        return 0.0  # counted by the links
    if chip.clock:
        cycles = (row.cycles or 0) / chip.clock
        # Its schedule leaves out what it waits for memory.
        return max(cycles, row.bytes / chip.copy) if row.kind == TPU_KERNEL else cycles
    # What the shape of a result says: a kernel that multiplies bfloat16 into float32 is at the rate
    # of the model's products.
    return max(row.bytes / chip.copy, (row.flops or 0) / chip.matmul[dtype])


def _unknown(row: Cost, target: Target) -> bool:
    """Returns whether the text does not tell what a kernel costs; small ones have no cycles."""
    silent = target.chip.clock and row.cycles is None and row.bytes > 1e6 * row.runs
    return row.flops is None or bool(silent and row.klass not in ("collective", "slice", "copy"))


def _memory(compiled: jax.stages.Compiled, held: Mapping[str, int]) -> dict[str, int]:
    found = compiled.memory_analysis()
    # Results that do not take the place of an argument.
    fresh = found.output_size_in_bytes - found.alias_size_in_bytes
    # XLA pads arrays to tiles.
    padding = found.argument_size_in_bytes - sum(held.values())
    return {
        **held,
        **({"padding": padding} if padding > 0 else {}),
        "activations and temporaries": found.temp_size_in_bytes,
        "results and program": max(0, fresh) + found.generated_code_size_in_bytes,
    }


def _sources(rows: Sequence[Cost], seconds: Mapping[str, float]) -> list[Source]:
    groups: dict[Any, list[Cost]] = collections.defaultdict(list)
    for row in rows:
        groups[row.source or row.path].append(row)
    found = []
    for group in groups.values():
        costliest = max(group, key=lambda row: seconds[row.name])
        found.append(
            Source(
                place=costliest.source,
                path=costliest.path,
                what=costliest.what,
                seconds=sum(seconds[row.name] for row in group),
                bytes=sum(row.bytes for row in group),
                flops=sum(row.flops or 0 for row in group),
            )
        )
    return sorted(found, key=lambda source: -source.seconds)
