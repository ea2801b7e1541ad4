"""Chips that programs are compiled for without having one: descriptions, rates, topologies."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from importlib import resources

from aver_jax.errors import UserError

GIB = 2**30
#: What is compiled of an experiment.
PROGRAMS = ("train", "inference", "relevance")


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device of a kind.

    Attributes:
      name: as in `--chip`.
      platform: "cuda" or "tpu".
      memory: bytes of a device.
      copy: bytes/s, read and written together.
      matmul: FLOP/s of large products, by dtype of their factors.
      link: bytes/s that a device sends over all its links to the devices beside it.
      clock: cycles/s by which the TPU compiler's estimates become seconds; 0 of a GPU.
      sources: where each rate comes from, "measured" or "published" and by whom.
    """

    name: str
    platform: str
    memory: int
    copy: float
    matmul: Mapping[str, float]
    link: float
    clock: float
    sources: Mapping[str, str]


_NVIDIA = "published (NVIDIA's data sheet, dense)"
_GOOGLE = "published (Google Cloud's page of the TPU)"
_CYCLES = "published; an 8192^3 bf16 product then comes out at {} of the published peak"


def _gpu(name, memory, copied, bf16, tf32, link, **measured) -> Chip:
    sources = dict.fromkeys(("memory", "copy", "bfloat16", "float32", "link"), _NVIDIA)
    return Chip(name, "cuda", memory, copied, {"bfloat16": bf16, "float32": tf32}, link, 0.0,
                sources | measured)  # fmt: skip


def _tpu(name, memory, copy, bf16, link, clock, of_clock) -> Chip:
    sources = dict.fromkeys(("memory", "copy", "bfloat16", "link"), _GOOGLE)
    # XLA multiplies float32 in one pass of bfloat16 unless told otherwise.
    rates = {"bfloat16": bf16, "float32": bf16}
    return Chip(name, "tpu", memory * GIB, copy, rates, link, clock, sources | {"clock": of_clock})


_ON_H100 = "measured on one H100 SXM (aver bench)"

#: By name. float32 on a GPU is TF32, XLA's default for products.
CHIPS = {
    chip.name: chip
    for chip in (
        _gpu("h100", 84929347584, 3.0e12, 798e12, 494e12, 450e9, copy=_ON_H100, bfloat16=_ON_H100),
        _gpu("h200", 150109880320, 4.8e12, 989e12, 494e12, 450e9),
        _gpu("a100", 84987740160, 2.039e12, 312e12, 156e12, 300e9),
        _gpu("l4", 23578279936, 300e9, 121e12, 60e12, 32e9),
        # The compiler's cycles of 8192^3: 9.34, 9.56, 4.65 and 2.98 million.
        # A device of v4 is one of a chip's two cores, as XLA describes it: half of all rates.
        _tpu("v4", 16, 0.614e12, 137.5e12, 150e9, 1.05e9, _CYCLES.format("90%")),
        _tpu("v5e", 16, 0.819e12, 197e12, 200e9, 1.5e9, _CYCLES.format("88%")),
        _tpu("v5p", 95, 2.765e12, 459e12, 600e9, 1.75e9, _CYCLES.format("90%")),
        _tpu(
            "v6e",
            32,
            1.640e12,
            918e12,
            400e9,
            1.75e9,
            "not published, that of v5p: the least sure of all; " + _CYCLES.format("70%"),
        ),
    )
}


# In the names of GPUs: other rates than those of the catalog, or a part of a GPU.
_SLOWER = re.compile(r"pcie|nvl|mig|40gb")


def chip_of_device(kind: str) -> Chip | None:
    """Returns the GPU of the catalog that a device is, or None.

    Args:
      kind: `device_kind` of a jax device, as "NVIDIA H100 80GB HBM3".
    """
    words = kind.lower()
    if _SLOWER.search(words):
        return None
    named = (c for c in CHIPS.values() if c.platform == "cuda")
    return next((c for c in named if re.search(rf"\b{c.name}\b", words)), None)


@dataclasses.dataclass(frozen=True)
class Target:
    """A chip, the number of its devices, and `topology` as XLA's description takes it."""

    chip: Chip
    devices: int
    topology: str

    def __str__(self) -> str:
        return f"{self.devices} x {self.chip.name}"


def parse_target(text: str) -> Target:
    """Returns what `--chip` names.

    Args:
      text: a chip alone ("h100", "v5e"), GPUs and their number ("h100:8"; more than 8 are hosts of
        8), or TPUs and the slice ("v5e:4x4", "v4:2x2x2").

    Raises:
      UserError: an unknown chip, or a number or slice that it does not have.
    """
    name, colon, wanted = text.partition(":")
    chip = CHIPS.get(name)
    if chip is None:
        raise UserError(f"--chip is {text!r}; expected one of {', '.join(CHIPS)}")
    if chip.platform == "cuda":
        devices = int(wanted) if re.fullmatch(r"[1-9]\d*", wanted) else 0 if colon else 1
        if not devices or (devices > 8 and devices % 8) or devices > 256:
            raise UserError(
                f"--chip is {text!r}; expected {name} or {name}:N, 1 to 8 devices, or 16, 24 ... "
                "256, hosts of 8"
            )
        hosts = max(1, devices // 8)
        return Target(chip, devices, f"{hosts}x{devices // hosts}x1")
    cube = name in ("v4", "v5p")
    wanted = wanted if colon else "1x1x1" if cube else "1x1"
    sides = [int(side) for side in wanted.split("x")] if re.fullmatch(r"\d+(x\d+)+", wanted) else []
    if len(sides) != 2 + cube or not 1 <= math.prod(sides) <= 256:
        raise UserError(
            f"--chip is {text!r}; expected {name} or {name}:SLICE of at most 256 chips, such as "
            f"{name}:{'2x2x2' if cube else '4x4'}"
        )
    return Target(chip, math.prod(sides) * (2 if name == "v4" else 1), wanted)


def make_topology_mesh(target: Target):
    """Returns a one-axis mesh of devices that are not there.

    Raises:
      UserError: the compiler for this chip is not installed, or has no such slice.
    """
    # The TPU's compiler would ask a server that is not there, the other look for a driver.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    # No TPU is opened here, so that several compilers need not wait for one another.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    from aver_jax.runtime.data_parallel import AXIS

    chip, options = target.chip, {}
    if chip.platform == "cuda":
        options = {"target_config": _description(chip.name), "topology": target.topology}
        name = ""
    else:
        name = f"{chip.name}:{target.topology}"
        if "1x1" in target.topology:
            options = {"chips_per_host_bounds": (1, 1, 1)}
    try:
        found = topologies.get_topology_desc(name, chip.platform, **options)
    except Exception as error:  # each plugin raises its own
        reason = " ".join(str(error).split())[:200]
        if chip.platform == "tpu" and "opology" in reason and "not implemented" not in reason:
            raise UserError(
                f"{chip.name} has no slice {target.topology} ({reason}); take another, such as "
                f"{chip.name}:{'2x2x2' if target.topology.count('x') == 2 else '4x4'}"
            ) from error
        raise UserError(
            f"no compiler for {target} ({reason}); it needs Python 3.12 and the extra: "
            "pip install 'aver_jax[chips]'"
        ) from error
    return Mesh(np.array(found.devices), (AXIS,), axis_types=(AxisType.Auto,))


def _description(name: str) -> str:
    folder = resources.files("aver_jax.chips").joinpath("descriptions")
    return folder.joinpath(f"{name}.txtpb").read_text("utf-8")
