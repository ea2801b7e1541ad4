"""Costs of the instructions of a compiled function: runs, bytes, operations, and their class."""

import collections
import dataclasses
import re
from collections.abc import Iterable

from aver_jax.chips.hlo.flops import flops, is_product
from aver_jax.chips.hlo.text import Computation, HloModule, Instruction, shortened
from aver_jax.chips.hlo.traffic import (
    COLLECTIVES,
    FUSIONS,
    VIEWS,
    read,
    result_of_start,
    traffic,
)

# In the order in which a report lists them.
CLASSES = ("matmul", "elementwise", "transpose", "copy", "slice", "fill", "collective", "other")

# Names for memory that is there already.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier",
    "partition-id", "replica-id", "add-dependency", "domain",
}  # fmt: skip
_MOVES = {
    "copy", "transpose", "slice", "dynamic-slice", "dynamic-update-slice", "concatenate", "pad",
    "broadcast", "reshape", "gather", "reverse", "convert",
}  # fmt: skip
_SCALAR = 16  # bytes: a constant


@dataclasses.dataclass(frozen=True)
class Cost:
    """One instruction, or several alike.

    Attributes:
      name: of the instruction, as in a trace; of several, the first one's.
      names: all of them.
      kind: opcode; of a fusion with its kind, of a custom call its target.
      klass: one of `CLASSES`.
      reorders: whether data changes its order in memory inside, whatever the class.
      pure: whether nothing is computed: only moved, converted or filled in.
      what: the operations that matter inside, the largest first.
      path: the JAX operation, shortened, "forward" or "backward" before it.
      source: "file.py:line" of the project's code.
      shape: of the result.
      runs: of all together in one run of the function; None where a loop's length is unknown.
      bytes: read and written, all runs.
      flops: of products, all runs; None where unknown.
      cycles: the TPU compiler's own estimate, all runs; None where it has none.
      collective: the kind of a collective, also of one within a fusion; "" of all else.
      sent: bytes of a collective's result, all runs.
    """

    name: str
    names: tuple[str, ...]
    kind: str
    klass: str
    reorders: bool
    pure: bool
    what: str
    path: str
    source: str
    shape: str
    runs: int
    bytes: float
    flops: float | None
    cycles: int | None
    collective: str
    sent: float


@dataclasses.dataclass(frozen=True)
class Costs:
    """The instructions of a module, and the loops whose length its text does not tell.

    Attributes:
      rows: every instruction that does something.
      containers: names of loops, calls and branches, whose time holds that of other rows.
      unknown_loops: names of loops counted as one run.
    """

    rows: tuple[Cost, ...]
    containers: frozenset[str]
    unknown_loops: tuple[str, ...]


def costs(module: HloModule, ours=lambda file: "site-packages" not in file) -> Costs:
    """Returns the cost of every instruction of a module.

    Args:
      module: from `aver_jax.chips.hlo.text.parse`.
      ours: says of a source file whether its lines are worth naming.
    """
    rows, containers, unknown = [], set(), []

    def visit(computation: Computation, runs: int) -> None:
        for each in computation.instructions.values():
            if each.opcode in _FREE or each.opcode.endswith("-done"):
                continue
            if each.opcode == "while":
                containers.add(each.name)
                length = trip_count(module, computation, each)
                if length is None:
                    unknown.append(each.name)
                for body in each.called("body"):
                    visit(module.computations[body], runs * (1 if length is None else length))
            elif each.opcode in ("call", "conditional", "async-start"):
                containers.add(each.name)
                names = ("to_apply", "calls", "called_computations", "branch_computations")
                branches = ("true_computation", "false_computation")
                for body in each.called(*names, *branches):
                    visit(module.computations[body], runs)
            else:
                rows.append(_cost(module, computation, each, runs, ours))

    visit(module.computations[module.entry], 1)
    return Costs(tuple(rows), frozenset(containers), tuple(unknown))


def alike(rows: Iterable[Cost]) -> list[Cost]:
    """Puts instructions that do the same together, such as those of unrolled layers."""
    groups: dict[tuple, list[Cost]] = collections.defaultdict(list)
    for row in rows:
        each = row.bytes / row.runs if row.runs else 0
        groups[row.kind, row.klass, row.what, row.path, row.source, row.shape, each].append(row)
    return [
        dataclasses.replace(
            group[0],
            names=tuple(name for row in group for name in row.names),
            runs=sum(row.runs for row in group),
            bytes=sum(row.bytes for row in group),
            flops=_sum(row.flops for row in group),
            cycles=_sum(row.cycles for row in group),
            sent=sum(row.sent for row in group),
        )
        for group in groups.values()
    ]


def _sum(numbers: Iterable[float | None]) -> float | None:
    known = list(numbers)
    return None if None in known else sum(known)


def trip_count(module: HloModule, computation: Computation, loop: Instruction) -> int | None:
    """Returns how often a while loop runs: XLA's own count, else from its condition, else None.

    A condition is understood that compares a counter, which starts at a constant and goes up by 1
    (as `lax.scan` and `fori_loop` make it), with a constant.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known.group(1))
    condition = module.computations[loop.called("condition")[0]]
    start = computation.instructions[loop.operands[0]]

    def constant(within: Computation, name: str) -> int | None:
        """Follows a value to an integer constant, through the loop's tuple if need be."""
        value = within.instructions[name]
        if value.opcode == "constant" and re.fullmatch(r"-?\d+", value.literal):
            return int(value.literal)
        if value.opcode in ("copy", "bitcast"):
            return constant(within, value.operands[0])
        of_loop = value.opcode == "get-tuple-element" and within is condition
        if of_loop and start.opcode == "tuple":
            return constant(computation, start.operands[int(value.attributes["index"])])
        return None

    test, operands = condition.root, condition.root.operands
    if test.opcode == "fusion":
        inside = module.computations[test.called("calls")[0]]
        numbers = {each.name: number for number, each in inside.parameters.items()}
        test = inside.root
        if not all(name in numbers for name in test.operands):
            return None
        operands = tuple(operands[numbers[name]] for name in test.operands)
    if test.opcode != "compare" or test.attributes.get("direction") not in ("LT", "LE"):
        return None
    first, bound = (constant(condition, name) for name in operands)
    if first is None or bound is None:
        return None
    return max(0, bound - first + (test.attributes["direction"] == "LE"))


def _cost(module: HloModule, computation: Computation, each: Instruction, runs: int, ours) -> Cost:
    inside = _inside(module, each)
    products = [
        flops(inner, within) for within, inner in inside or [(computation, each)] if inner.operands
    ]
    work = [(w, i) for w, i in inside if i.opcode not in _FREE]
    reorders = any(_reorders(within, inner) for within, inner in work or [(computation, each)])
    pure = all(i.opcode in _MOVES for _, i in work) if work else each.opcode in _MOVES
    named = next(
        (i for i in (each, *(i for _, i in reversed(work))) if _tells(i)),
        _origin(computation, each),
    )
    collective, sent = _collective(each, [i for _, i in inside])
    kind = each.opcode
    if each.opcode in FUSIONS:
        kind = f"{each.opcode} {each.attributes.get('kind', '')}"
    return Cost(
        name=each.name,
        names=(each.name,),
        kind=each.target or kind,
        klass="collective"
        if collective
        else _class(module, computation, each, work, reorders, pure),
        reorders=reorders,
        pure=pure,
        what=_what(each, work),
        path=shortened(named.op_name),
        source=module.source(named.frame, ours),
        shape=str(each.shape),
        runs=runs,
        bytes=runs * traffic(module, computation, each),
        flops=None if None in products else runs * sum(products),
        cycles=None if (cycles := _cycles(each)) is None else runs * cycles,
        collective=collective,
        sent=runs * sent,
    )


def _collective(each: Instruction, inside: list[Instruction]) -> tuple[str, float]:
    """Returns the kind of a collective, "" if it is none, and the bytes of its result."""
    # TPUs run some as a pair of fusions, of which the second waits for the first.
    parts = [] if "done" in each.name else inside
    for one in (each, *parts):
        for kind in COLLECTIVES:
            if one.opcode.startswith(kind):
                return kind, result_of_start(one).bytes
    return "", 0.0


def _cycles(each: Instruction) -> int | None:
    found = re.search(r'"estimated_cycles":"(\d+)"', each.rest)
    return int(found.group(1)) if found else None


def _inside(module: HloModule, each: Instruction) -> list[tuple[Computation, Instruction]]:
    """Returns the instructions that a fusion runs, also those of fusions within it."""
    if each.opcode not in FUSIONS:
        return []
    within = module.computations[each.called("calls")[0]]
    found = []
    for inner in within.instructions.values():
        found += _inside(module, inner) or [(within, inner)]
    return found


def _tells(each: Instruction) -> bool:
    """Returns whether its metadata says more than which argument it was made from."""
    return bool(each.frame) or "/" in each.op_name


def _origin(computation: Computation, each: Instruction) -> Instruction:
    """Returns the nearest instruction before this one that says where it comes from."""
    for _ in range(8):
        if _tells(each) or not each.operands:
            break
        each = computation.instructions[each.operands[0]]
    return each


def _reorders(computation: Computation, each: Instruction) -> bool:
    """Returns whether a copy or transpose changes the order in memory of the axes longer than 1."""
    if each.opcode not in ("copy", "transpose", "copy-start"):
        return False
    before = computation.instructions[each.operands[0]].shape
    after = each.shape.parts[0] if each.shape.parts else each.shape
    axes = each.axes("dimensions") or tuple(range(len(after.dims)))
    return before.major_to_minor != tuple(axes[axis] for axis in after.major_to_minor)


def _class(
    module: HloModule,
    computation: Computation,
    each: Instruction,
    work: list[tuple[Computation, Instruction]],
    reorders: bool,
    pure: bool,
) -> str:
    if is_product(each) or any(is_product(inner) for _, inner in work):
        return "matmul"
    if each.opcode not in _MOVES | {*FUSIONS, "copy-start", "iota"}:
        return "other" if each.opcode in ("custom-call", "rng", "sort") else "elementwise"
    if each.opcode not in FUSIONS:
        root, within, names = each, computation, {each.opcode}
    else:
        within = module.computations[each.called("calls")[0]]
        root, names = within.root, {inner.opcode for _, inner in work}
    root_reorders = _reorders(within, _mover(within, root))
    if (pure and reorders) or root_reorders:
        return "transpose"
    if names <= {"broadcast", "iota"} and read(module, computation, each) <= _SCALAR:
        return "fill"
    if not pure and _mover(within, root).opcode != "dynamic-update-slice":
        return "elementwise"
    if names & {"slice", "dynamic-slice", "dynamic-update-slice", "concatenate", "pad", "gather"}:
        return "slice"
    return "copy" if names & {"copy", "copy-start", "transpose", "reshape"} else "elementwise"


def _mover(computation: Computation, root: Instruction) -> Instruction:
    """Returns the copy or transpose that makes a fusion's result, if nothing else does.

    Looks through views, conversions and the update of a part of a buffer.
    """
    each = root
    while each.opcode in VIEWS | {"convert", "dynamic-update-slice", "copy", "transpose"}:
        if _reorders(computation, each):
            return each
        each = computation.instructions[each.operands[each.opcode == "dynamic-update-slice"]]
    return root


def _what(each: Instruction, work: list[tuple[Computation, Instruction]]) -> str:
    """Names the operations inside that handle most elements; moves of data always."""
    weights: dict[str, float] = collections.defaultdict(float)
    for _, inner in work or [(None, each)]:
        weights[inner.opcode] += max(inner.shape.size, 1)
    plain = {"broadcast", "reshape", "compare", "select", "bitcast-convert", "iota"} | _FREE
    kept = [name for name in weights if name not in plain] or list(weights)
    # A product or a reduction gives little, however much it reads.
    kept.sort(key=lambda name: (name not in ("dot", "convolution", "reduce"), -weights[name]))
    return " ".join(kept[:4] + ["..."] * (len(kept) > 4))
