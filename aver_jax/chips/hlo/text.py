"""XLA's text of a compiled module, parsed: computations, instructions, shapes, source lines."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator

# Bytes of an element; of what is not listed (token, opaque) nothing is moved.
WIDTHS = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4,
    "s64": 8, "u64": 8, "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16,
    "f4e2m1fn": 0.5, "f8e4m3": 1, "f8e4m3fn": 1, "f8e4m3fnuz": 1, "f8e5m2": 1, "f8e5m2fnuz": 1,
    "f8e8m0fnu": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's element type, dimensions and layout, or a tuple of shapes.

    Attributes:
      dtype: XLA's name of the element type; "tuple" for a tuple.
      dims: lengths of the axes.
      minor_to_major: axes from the one whose neighbours lie side by side; row-major if none given.
      parts: the shapes of a tuple.
    """

    dtype: str
    dims: tuple[int, ...] = ()
    minor_to_major: tuple[int, ...] = ()
    parts: tuple["Shape", ...] = ()

    @property
    def size(self) -> int:
        """Number of elements; of a tuple that of all its parts."""
        return sum(part.size for part in self.parts) if self.parts else math.prod(self.dims)

    @property
    def bytes(self) -> float:
        """Bytes of the elements, without padding."""
        if self.dtype == "tuple":
            return sum(part.bytes for part in self.parts)
        return math.prod(self.dims) * WIDTHS.get(self.dtype, 0)

    @property
    def major_to_minor(self) -> tuple[int, ...]:
        """The axes longer than 1 in the order in which they lie in memory."""
        order = self.minor_to_major or tuple(reversed(range(len(self.dims))))
        return tuple(axis for axis in reversed(order) if self.dims[axis] > 1)

    def __str__(self) -> str:
        if self.dtype == "tuple":
            return "(" + ", ".join(map(str, self.parts)) + ")"
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation; `rest` is the text after its operands, `literal` that of them."""

    name: str
    opcode: str
    shape: Shape
    operands: tuple[str, ...]
    literal: str
    rest: str
    root: bool

    @functools.cached_property
    def attributes(self) -> dict[str, str]:
        """What follows the operands, as {name: text}; braces of the text are kept."""
        pairs = (part.partition("=") for part in _split(self.rest))
        return {name.strip(): value.strip() for name, _, value in pairs if value}

    def axes(self, name: str) -> tuple[int, ...]:
        """Returns an attribute such as lhs_contracting_dims={1,2}; empty if it is not there."""
        return tuple(map(int, re.findall(r"\d+", self.attributes.get(name, ""))))

    def called(self, *names: str) -> tuple[str, ...]:
        """Returns the computations that the attributes of these names call."""
        text = " ".join(self.attributes.get(name, "") for name in names)
        return tuple(re.findall(r"%?([\w.\-]+)", text))

    @property
    def op_name(self) -> str:
        """The path of the JAX operation that it comes from; "" if it carries none."""
        return self._metadata(r'op_name="((?:[^"\\]|\\.)*)"')

    @property
    def frame(self) -> int:
        """Its stack frame, a key of `HloModule.frames`; 0 if it carries none."""
        return int(self._metadata(r"stack_frame_id=(\d+)") or 0)

    @property
    def target(self) -> str:
        """What a custom call calls; "" of other instructions."""
        return self.attributes.get("custom_call_target", "").strip('"')

    def _metadata(self, pattern: str) -> str:
        found = re.search(pattern, self.attributes.get("metadata", ""))
        return found.group(1) if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order in which they run where the module is scheduled."""

    name: str
    instructions: dict[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose value the computation returns."""
        return next(each for each in self.instructions.values() if each.root)

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Its parameters by number."""
        found = (each for each in self.instructions.values() if each.opcode == "parameter")
        return {int(each.literal): each for each in found}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each value."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for each in self.instructions.values():
            for operand in dict.fromkeys(each.operands):
                users[operand].append(each)
        return users


@dataclasses.dataclass(frozen=True)
class Frame:
    """A place in the source, and the frame that called it (0: none)."""

    file: str
    line: int
    parent: int


@dataclasses.dataclass(frozen=True)
class HloModule:
    """A compiled function.

    Attributes:
      name: of the module, as traces give it.
      computations: by name.
      entry: the name of the one that runs.
      frames: stack frames by number, where the text has them.
    """

    name: str
    computations: dict[str, Computation]
    entry: str
    frames: dict[int, Frame]

    def stack(self, frame: int) -> Iterator[Frame]:
        """Yields the frames of a stack, innermost first."""
        while frame in self.frames:
            yield self.frames[frame]
            frame = self.frames[frame].parent

    def source(self, frame: int, ours: Callable[[str], bool]) -> str:
        """Returns "file.py:line" of the innermost frame in a file that is `ours`, else ""."""
        for each in self.stack(frame):
            if ours(each.file):
                return f"{each.file.rsplit('/', 1)[-1]}:{each.line}"
        return ""


def parse(text: str) -> HloModule:
    """Parses what `jax.stages.Compiled.as_text` gives.

    Raises:
      ValueError: the text has no entry computation, or a line is not understood.
    """
    found = re.match(r"\s*HloModule ([\w.\-]+)", text)
    computations, entry = {}, ""
    name, lines = None, {}
    for line in text.splitlines():
        if name is None:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$", line)
            if header:
                name, lines = header.group(2), {}
                entry = name if header.group(1) else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, lines)
            name = None
        elif line.strip():
            instruction = parse_instruction(line)
            lines[instruction.name] = instruction
    if not entry:
        raise ValueError("no ENTRY computation in the text of the module")
    return HloModule(found.group(1) if found else "", computations, entry, _frames(text))


def shortened(op_name: str) -> str:
    """Returns a JAX operation's path with its direction and without the wrappers around it.

    "jit(step)/transpose(jvp(Net))/while/body/blocks/blocks._divided/attn/vmap(a,b->c)/dot_general"
    becomes "backward blocks/attn/dot_general".
    """
    parts = _parts(op_name.split(";")[0])
    direction = ""
    if any(part.startswith("transpose(jvp(") for part in parts):
        direction = "backward "
    elif any(part.startswith("jvp(") for part in parts):
        direction = "forward "
    if "rematted_computation" in parts:
        direction += "again "
    skipped = ("while", "body", "cond", "closed_call", "checkpoint", "rematted_computation")
    kept = [
        part
        for part in parts
        if part not in skipped and "(" not in part and not re.search(r"\w\._", part)
    ]
    return direction + "/".join(kept[-4:])


def _parts(path: str) -> list[str]:
    """Splits at the slashes outside of brackets."""
    parts, depth = [""], 0
    for mark in path:
        depth += (mark == "(") - (mark == ")")
        if mark == "/" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += mark
    return parts


def parse_instruction(line: str) -> Instruction:
    """Parses one line of a computation; ValueError if it is not an instruction."""
    head = re.match(r"\s*(ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        raise ValueError(f"not an instruction: {line.strip()[:80]!r}")
    shape, position = parse_shape(line, head.end())
    opcode = re.compile(r"\s*([\w\-]+)\(").match(line, position)
    if not opcode:
        raise ValueError(f"no opcode after the shape: {line.strip()[:80]!r}")
    end = _closing(line, opcode.end() - 1)
    literal = line[opcode.end() : end]
    reads = opcode.group(1) not in ("parameter", "constant", "iota")
    return Instruction(
        name=head.group(2),
        opcode=opcode.group(1),
        shape=shape,
        operands=tuple(re.findall(r"%([\w.\-]+)", literal)) if reads else (),
        literal=literal,
        rest=line[end + 1 :].lstrip(", "),
        root=bool(head.group(1)),
    )


def parse_shape(text: str, position: int = 0) -> tuple[Shape, int]:
    """Parses a shape such as f32[8,128]{1,0:T(8,128)} or (f32[], /*index=1*/s32[2]{0}).

    Returns:
      The shape, and the position after it.
    """
    position = _blank.match(text, position).end()
    if text[position] == "(":
        parts, position = [], position + 1
        while text[position := _blank.match(text, position).end()] != ")":
            part, position = parse_shape(text, position)
            parts.append(part)
        return Shape("tuple", parts=tuple(parts)), position + 1
    found = _array.match(text, position)
    if not found:
        raise ValueError(f"not a shape: {text[position : position + 40]!r}")
    dtype, dims, layout = found.groups()
    order = (layout or "").partition(":")[0]
    return (
        Shape(dtype, tuple(map(int, re.findall(r"\d+", dims))), _numbers(order)),
        found.end(),
    )


_blank = re.compile(r"(?:[\s,]|/\*.*?\*/)*")
# The layout may hold tiles, as in {1,0:T(8,128)(2,1)S(1)}.
_array = re.compile(r"(\w+)\[([^\]]*)\](?:\{([^}]*)\})?")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number.strip())


def _closing(text: str, start: int) -> int:
    """Returns where the bracket at `start` closes; brackets within quotes do not count."""
    depth = 0
    for found in _brackets.finditer(text, start):
        mark = found.group()
        if mark in "({[":
            depth += 1
        elif mark in ")}]":
            depth -= 1
            if not depth:
                return found.start()
    raise ValueError(f"a bracket is not closed: {text[start : start + 60]!r}")


_brackets = re.compile(r'"(?:[^"\\]|\\.)*"|[(){}\[\]]')
_marks = re.compile(r'"(?:[^"\\]|\\.)*"|[(){}\[\],]')


def _split(text: str) -> list[str]:
    """Splits at the commas that are in no bracket and no quotes."""
    parts, depth, start = [], 0, 0
    for found in _marks.finditer(text):
        mark = found.group()
        if mark == "," and not depth:
            parts.append(text[start : found.start()])
            start = found.end()
        elif mark in "({[":
            depth += 1
        elif mark in ")}]":
            depth -= 1
    return [*parts, text[start:]]


def _frames(text: str) -> dict[int, Frame]:
    """Reads the tables of stack frames at the head of the text; metadata holds keys to the last."""

    def table(title: str) -> dict[int, str]:
        found = re.search(rf"^{title}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
        rows = (line.split(" ", 1) for line in (found.group(1) if found else "").splitlines())
        return {int(number): row for number, row in rows}

    files = table("FileNames")
    places = {}
    for number, row in table("FileLocations").items():
        file, line = re.search(r"file_name_id=(\d+).*?\bline=(\d+)", row).groups()
        places[number] = (files[int(file)].strip('"'), int(line))
    links = {
        number: tuple(map(int, re.findall(r"=(\d+)", row)))
        for number, row in table("StackFrames").items()
    }
    # Some releases of XLA print the number of the parent's successor.
    late = any(parent >= number for number, (_, parent) in links.items())
    return {
        number: Frame(*places[place], parent - late) for number, (place, parent) in links.items()
    }
