"""Cycles of Pallas kernels on a TPU that is not here: the bundles that its compiler schedules.

XLA's estimate of cycles leaves a kernel of ours out. Its compiler writes down how many bundles of
instructions it has scheduled, one a cycle, if it is asked before it starts: so every kernel of a
program is compiled by itself, in a process of its own.

    python -m aver_jax.chips.kernel_schedules CHIP[:SLICE] FOLDER

compiles every `FOLDER/NAME.kernel` and prints {NAME: bundles} as JSON.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aver_jax.chips.catalog import Target, make_topology_mesh, parse_target

_SECONDS = 600


def kernel_cycles(jaxpr: Any, target: Target) -> dict[str, float]:
    """Returns the cycles of a call of every Pallas kernel in a jaxpr, by the shape of its result.

    A kernel's bundles count once for every block of its grid: a loop inside a kernel would be
    counted as one round, and copies between memories not at all.

    Args:
      jaxpr: of a function that is compiled for the target.
      target: TPUs.

    Returns:
      {shape as `hlo.costs` has it: cycles}; kernels that cannot be compiled by themselves are not
      in it.
    """
    kernels = {}
    for equation in _kernels(jaxpr):
        kernels.setdefault(_shape(equation), equation)
    bundles = _bundles(list(kernels.values()), target) if kernels else []
    return {
        shape: count * math.prod(equation.params["grid_mapping"].grid)
        for (shape, equation), count in zip(kernels.items(), bundles, strict=True)
        if count
    }


def _bundles(kernels: list[Any], target: Target) -> list[int]:
    """Returns the bundles of a block of every kernel, 0 where it cannot be compiled by itself."""
    import jax

    one = f"{target.chip.name}:{'x'.join('1' for _ in target.topology.split('x'))}"
    with tempfile.TemporaryDirectory() as folder:
        for index, equation in enumerate(kernels):
            avals = [variable.aval for variable in equation.invars]
            exported = jax.export.export(jax.jit(_call_of(equation)), platforms=("tpu",))(
                *(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals)
            )
            Path(folder, f"{index}.kernel").write_bytes(exported.serialize())
        flags = (
            f"--xla_jf_dump_to={folder}",
            "--xla_jf_dump_llo_text=true",
            "--xla_jf_dump_llo_pass_label_regex=final_bundles",
        )
        environment = {"LIBTPU_INIT_ARGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, one, folder],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    return [found.get(str(index), 0) for index in range(len(kernels))]


def _kernels(jaxpr: Any) -> Iterator[Any]:
    from aver_jax.models.counting import inner_jaxprs

    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call" and not equation.params["interpret"]:
            yield equation
        else:
            for inner in inner_jaxprs(equation.params):
                yield from _kernels(inner)


def _call_of(equation: Any) -> Any:
    """Returns a function of an equation's inputs that does what it does."""

    def call(*inputs):
        return equation.primitive.bind(*inputs, **equation.params)

    return call


def _shape(equation: Any) -> str:
    names = {"bfloat16": "bf16", "float32": "f32", "float16": "f16", "int32": "s32"}
    shapes = [
        f"{names[variable.aval.dtype.name]}[{','.join(map(str, variable.aval.shape))}]"
        for variable in equation.outvars
    ]
    return shapes[0] if len(shapes) == 1 else f"({', '.join(shapes)})"


def main(words: list[str]) -> int:
    """Compiles the kernels of a folder one by one."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    chip, folder = words
    placed = NamedSharding(make_topology_mesh(parse_target(chip)), PartitionSpec())
    found = {}
    for file in sorted(Path(folder).glob("*.kernel")):
        before = set(Path(folder).iterdir())
        exported = jax.export.deserialize(bytearray(file.read_bytes()))
        jax.jit(exported.call).lower(
            *(jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed) for x in exported.in_avals)
        ).compile()
        counts = [_total(text) for text in sorted(set(Path(folder).iterdir()) - before)]
        if any(counts):
            found[file.stem] = max(counts)
    print(json.dumps(found))
    return 0


def _total(file: Path) -> int:
    """Returns the bundles of a schedule of a kernel; 0 of any other file."""
    if "schedule-analysis" not in file.name or "TLP" in file.name:
        return 0
    text = file.read_text()
    total = re.search(r"total scheduled bundles:\s*(\d+)", text)
    return int(total[1]) if total and "tpu_custom_call" in text else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
