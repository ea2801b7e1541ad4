"""Bytes that instructions read and write.

They are those of an instruction whose inputs and outputs lie in memory; what a fusion keeps inside
itself moves nothing. Of a value that is sliced, the slice alone is read, and where one part of a
buffer is updated in place, that part alone is written.
"""

import math

from aver_jax.chips.hlo.flops import window_of
from aver_jax.chips.hlo.text import Computation, HloModule, Instruction, Shape

VIEWS = {"bitcast", "reshape", "get-tuple-element", "opt-barrier"}
SLICES = {"slice", "dynamic-slice", "gather"}
# Every element of a result needs that element of the inputs alone.
_POINTWISE = {
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "negate", "abs", "convert",
    "select", "compare", "and", "or", "not", "exponential", "tanh", "erf", "rsqrt", "clamp",
}  # fmt: skip
# A fusion that runs beside others starts; its result is (inputs, output, context).
FUSIONS = ("fusion", "fusion-start")
COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute",
    "collective-broadcast",
)  # fmt: skip


def traffic(module: HloModule, computation: Computation, each: Instruction) -> float:
    """Returns the bytes that one run of an instruction reads and writes."""
    if each.opcode.startswith("copy-start"):
        return 2 * each.shape.parts[0].bytes
    if each.opcode == "slice-start" or each.opcode.startswith(COLLECTIVES):
        return 2 * result_of_start(each).bytes
    return read(module, computation, each) + _written(module, computation, each)


def read(module: HloModule, computation: Computation, each: Instruction) -> float:
    """Returns the bytes that one run of an instruction reads."""
    shapes = [computation.instructions[name].shape for name in each.operands]
    if each.opcode in FUSIONS:
        inside = module.computations[each.called("calls")[0]]
        return sum(
            _used(module, inside, parameter, shapes[number].bytes)
            for number, parameter in inside.parameters.items()
        )
    if each.opcode in SLICES:
        return min(each.shape.bytes, shapes[0].bytes) + sum(shape.bytes for shape in shapes[1:])
    if each.opcode == "dynamic-update-slice":
        return sum(shape.bytes for shape in shapes[1:])
    unread = (1 - _share_in_windows(each)) * shapes[0].bytes if _convolves(each) else 0
    return sum(shape.bytes for shape in shapes) - unread


def _convolves(each: Instruction) -> bool:
    """Returns whether its first input is what a convolution's windows slide over."""
    return "cudnn$conv" in each.target and "BackwardInput" not in each.target


def _share_in_windows(each: Instruction) -> float:
    """Returns the share of a convolution's input in windows: those of size 1 step over some."""
    window = window_of(each)
    sizes = window.get("size", [])
    strides = window.get("stride", ["1"] * len(sizes))
    pairs = zip(map(int, sizes), map(int, strides), strict=True)
    return math.prod(min(1.0, size / stride) for size, stride in pairs)


def _used(module: HloModule, inside: Computation, value: Instruction, whole: float) -> float:
    """Returns how much of a fusion's input is read: all of it, or the slices taken from it."""
    total = 0.0
    for user in inside.users[value.name]:
        if user.opcode in VIEWS:
            total += _used(module, inside, user, whole)
        elif user.opcode in SLICES and user.operands[0] == value.name:
            total += user.shape.bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
            total += 0
        elif user.opcode == "fusion":
            within = module.computations[user.called("calls")[0]]
            for number, name in enumerate(user.operands):
                if name == value.name:
                    total += _used(module, within, within.parameters[number], whole)
        elif user.opcode in _POINTWISE and user.name != inside.root.name:
            # Computed where it is needed, which is where what follows takes a slice.
            needed = _used(module, inside, user, user.shape.bytes) / max(user.shape.bytes, 1)
            total += needed * value.shape.bytes
        else:
            return whole
    return min(total, whole)


def _written(module: HloModule, computation: Computation, each: Instruction) -> float:
    if each.opcode in FUSIONS:
        inside = module.computations[each.called("calls")[0]]
        return _result(module, inside, inside.root)
    if each.opcode == "dynamic-update-slice":
        return computation.instructions[each.operands[1]].shape.bytes
    if each.opcode == "custom-call" and each.shape.parts:
        return sum(part.bytes for part in each.shape.parts if not _workspace(part))
    return each.shape.bytes


def _result(module: HloModule, inside: Computation, root: Instruction) -> float:
    if root.opcode == "tuple":
        return sum(_result(module, inside, inside.instructions[name]) for name in root.operands)
    if root.opcode == "bitcast":
        return min(root.shape.bytes, _result(module, inside, inside.instructions[root.operands[0]]))
    if root.opcode == "fusion":
        within = module.computations[root.called("calls")[0]]
        return _result(module, within, within.root)
    if root.opcode == "dynamic-update-slice":
        return inside.instructions[root.operands[1]].shape.bytes
    return 0.0 if root.opcode == "parameter" else root.shape.bytes


def _workspace(part: Shape) -> bool:
    """Returns whether a part of a library call's result is its scratch memory."""
    return part.dtype in ("u8", "s8") and len(part.dims) == 1


def result_of_start(each: Instruction) -> Shape:
    """Returns the shape of a result; what starts gives (operands, result, ...)."""
    starts = each.opcode.endswith("-start") and len(each.shape.parts) > 1
    return each.shape.parts[1] if starts else each.shape
