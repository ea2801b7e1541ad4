"""Floating-point operations of matrix products and convolutions, from their text."""

import json
import math
import re

from aver_jax.chips.hlo.text import Computation, Instruction, Shape

#: Target of a Pallas kernel's custom call on a TPU.
TPU_KERNEL = "tpu_custom_call"

# Two matrix products forward; backward computes the scores again and has four gradients.
_ATTENTION_PRODUCTS = {"forward": 2, "backward": 5}


def is_product(instruction: Instruction) -> bool:
    """Returns whether it is a matrix product, a convolution or a library's call of one."""
    if instruction.opcode in ("dot", "convolution"):
        return True
    products = ("cublas", "onednn$matmul", "onednn$conv", "cudnn$conv", "cudnn$fmha", "gemm")
    products += (TPU_KERNEL,)
    return any(part in instruction.target for part in products)


def flops(instruction: Instruction, computation: Computation) -> float | None:
    """Returns the operations of one run: 2 for a multiply and an add.

    Elementwise work counts nothing. Taps of a convolution that fall on padding or between the rows
    of a dilated input are not counted, as XLA's own analysis does.

    Returns:
      None for a product whose shape the text does not tell.
    """
    if not is_product(instruction):
        return 0
    inputs = [computation.instructions[name].shape for name in instruction.operands]
    if instruction.opcode == "dot":
        contracted = instruction.axes("lhs_contracting_dims")
        return 2 * instruction.shape.size * _lengths(inputs[0], contracted)
    if instruction.opcode == "convolution":
        return _convolution(instruction, inputs[0], inputs[1], instruction.shape)
    try:
        return _call(instruction, inputs)
    except (LookupError, ValueError, AttributeError):
        return None


def _lengths(shape: Shape, axes: tuple[int, ...]) -> int:
    return math.prod(shape.dims[axis] for axis in axes)


def _convolution(instruction: Instruction, data: Shape, kernel: Shape, output: Shape) -> float:
    """Returns multiply-adds of a convolution given its forward input, kernel and output."""
    labels = instruction.attributes["dim_labels"]
    of_data, of_kernel, of_output = re.match(r"(\w+)_(\w+)->(\w+)", labels).groups()
    window = window_of(instruction)
    spatial = sorted(set(of_kernel) - set("io"))
    taps = 1
    for number, axis in enumerate(spatial):
        taps *= _taps(
            data.dims[of_data.index(axis)],
            kernel.dims[of_kernel.index(axis)],
            output.dims[of_output.index(axis)],
            {name: values[number] for name, values in window.items() if len(values) > number},
        )
    # Of a group of features or of the batch, the kernel already holds one group's inputs alone.
    rows = output.dims[of_output.index("b")] * output.dims[of_output.index("f")]
    return 2 * rows * kernel.dims[of_kernel.index("i")] * taps


def window_of(instruction: Instruction) -> dict[str, list]:
    """Returns a convolution's window: {size=3x3 stride=2x2 pad=1_1x1_1 ...} by field and axis."""
    text = instruction.attributes.get("window", "")
    fields = dict(pair.split("=") for pair in text.strip("{}").split() if "=" in pair)
    return {
        name: [
            tuple(map(int, part.split("_"))) if name == "pad" else part
            for part in re.findall(r"-?\d+(?:_-?\d+)?", value)
        ]
        for name, value in fields.items()
    }


def _taps(size: int, kernel: int, outputs: int, window: dict) -> int:
    """Counts pairs of an output position and a kernel tap that meet an input, along one axis."""
    stride, spread = int(window.get("stride", 1)), int(window.get("lhs_dilate", 1))
    dilation = int(window.get("rhs_dilate", 1))
    before = window.get("pad", (0, 0))[0]
    last = (size - 1) * spread
    return sum(
        0 <= at <= last and at % spread == 0
        for output in range(outputs)
        for at in range(
            output * stride - before, output * stride - before + kernel * dilation, dilation
        )
    )


def _call(instruction: Instruction, inputs: list[Shape]) -> float:
    """Returns a library call's operations; LookupError or ValueError if the text has them not."""
    target = instruction.target
    output = instruction.shape.parts[0] if instruction.shape.parts else instruction.shape
    if "cudnn$conv" in target:
        # The labels and the window are those of the forward convolution.
        if "BackwardInput" in target:
            return _convolution(instruction, output, inputs[1], inputs[0])
        if "BackwardFilter" in target:
            return _convolution(instruction, inputs[0], output, inputs[1])
        return _convolution(instruction, inputs[0], inputs[1], output)
    settings = _settings(instruction)
    if target == TPU_KERNEL:
        # What its author says of it.
        return float(_found(settings, ("cost_estimate",))["flops"])
    if "fmha" in target:
        scores = _found(settings, ("intermediate_tensor_shape",))["dimensions"]
        direction = "backward" if "Backward" in target else "forward"
        features = inputs[0].dims[-1]
        return _ATTENTION_PRODUCTS[direction] * 2 * math.prod(map(int, scores)) * features
    if "onednn" in target:
        transposed = _found(settings, ("onednn_matmul_config",)).get("transpose_a", False)
        return 2 * output.size * inputs[0].dims[-2 if transposed else -1]
    numbers = _found(settings, ("dot_dimension_numbers",))
    return 2 * output.size * _lengths(inputs[0], _axes(numbers, "lhs_contracting_dimensions"))


def _settings(instruction: Instruction) -> dict:
    text = instruction.attributes["backend_config"]
    found = json.loads(text)
    return json.loads(found) if isinstance(found, str) else found


def _found(tree: dict, names: tuple[str, ...]):
    """Returns the first value in a nested dict whose key begins with one of the names."""
    for key, value in tree.items():
        if key.startswith(names):
            return value
        if isinstance(value, dict):
            try:
                return _found(value, names)
            except KeyError:
                pass
    raise KeyError(names[0])


def _axes(numbers: dict, name: str) -> tuple[int, ...]:
    return tuple(map(int, numbers[name]))
