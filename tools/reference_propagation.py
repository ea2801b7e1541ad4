"""LibraGrad, AttnLRP and LeGrad on transformers' TimeSformer in torch, in float64.

Nothing here is shared with `aver_jax`, which multiplies inputs by gradients. Here relevance itself
goes backward through every function, layer by layer, by the formulas of the papers: each function
below has relevance where autograd has a gradient. LeGrad is one call of torch autograd for every
layer. `tests/parity/test_propagation.py` compares with it.
"""

import numpy as np
import torch
from torch import Tensor
from transformers import TimesformerForVideoClassification

from tools.reference_relevance import PATHS, _clip_map, _retained, _space_matrix, _time_matrix

METHODS = ("libra_grad", "attn_lrp")


class _Linear(torch.autograd.Function):
    """The epsilon rule, epsilon 0: R_i = x_i sum_j W_ji R_j / z_j."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        z = x @ weight.T + bias
        ctx.save_for_backward(x, weight, z)
        return z

    @staticmethod
    def backward(ctx, relevance):
        x, weight, z = ctx.saved_tensors
        return x * ((relevance / z) @ weight), None, None


class _Sum(torch.autograd.Function):
    """A residual sum: each part gets its share."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx, relevance):
        a, b = ctx.saved_tensors
        share = relevance / (a + b)
        return a * share, b * share


class _Mean(torch.autograd.Function):
    """The mean over an axis."""

    @staticmethod
    def forward(ctx, x, axis):
        ctx.axis = axis
        ctx.save_for_backward(x)
        return x.mean(axis)

    @staticmethod
    def backward(ctx, relevance):
        (x,) = ctx.saved_tensors
        share = relevance / x.mean(ctx.axis) / x.shape[ctx.axis]
        return x * share.unsqueeze(ctx.axis), None


class _Copies(torch.autograd.Function):
    """Copies of x along a new axis 1; the relevance of all is summed."""

    @staticmethod
    def forward(ctx, x, number):
        return x.unsqueeze(1).expand(-1, number, *x.shape[1:]).clone()

    @staticmethod
    def backward(ctx, relevance):
        return relevance.sum(1), None


class _Norm(torch.autograd.Function):
    """LayerNorm as a linear layer of its centred input: the denominator is a number."""

    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        size = x.shape[-1]
        centre = torch.eye(size, dtype=x.dtype) - 1 / size
        scale = 1 / (x.var(-1, unbiased=False, keepdim=True) + epsilon).sqrt()
        z = (x @ centre) * scale * weight + bias
        ctx.save_for_backward(x, centre, scale, weight, z)
        return z

    @staticmethod
    def backward(ctx, relevance):
        x, centre, scale, weight, z = ctx.saved_tensors
        return x * ((relevance / z * weight * scale) @ centre.T), None, None, None


class _Gelu(torch.autograd.Function):
    """The identity rule."""

    @staticmethod
    def forward(ctx, x):
        return torch.nn.functional.gelu(x)

    @staticmethod
    def backward(ctx, relevance):
        return relevance


class _Scaled(torch.autograd.Function):
    """x times a number: a linear layer, which passes relevance on as it is."""

    @staticmethod
    def forward(ctx, x, factor):
        return x * factor

    @staticmethod
    def backward(ctx, relevance):
        return relevance, None


class _Softmax(torch.autograd.Function):
    """AttnLRP, proposition 3.1: R_i = x_i (R_i - s_i sum_j R_j)."""

    @staticmethod
    def forward(ctx, x):
        s = x.softmax(-1)
        ctx.save_for_backward(x, s)
        return s

    @staticmethod
    def backward(ctx, relevance):
        x, s = ctx.saved_tensors
        return x * (relevance - s * relevance.sum(-1, keepdim=True))


class _Product(torch.autograd.Function):
    """a @ b; AttnLRP, proposition 3.3: half to each. `constant`: all to b, LibraGrad's."""

    @staticmethod
    def forward(ctx, a, b, constant, seen):
        ctx.constant, ctx.seen = constant, seen
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx, relevance):
        a, b = ctx.saved_tensors
        share = relevance / (a @ b)
        of_a, of_b = share @ b.transpose(-1, -2), a.transpose(-1, -2) @ share
        if ctx.seen is not None:
            ctx.seen.append((a, of_a))
        if ctx.constant:
            return None, b * of_b, None, None
        return a * of_a / 2, b * of_b / 2, None, None


def relevance(
    model: TimesformerForVideoClassification, frames: np.ndarray, target: np.ndarray, method: str
) -> dict[str, np.ndarray]:
    """Returns "pixels" [B,T,H,W,3], signed, "logits", and for libra_grad "libra_tibav/PATH" maps.

    Args:
      model: made float64 here.
      frames: float [B,T,H,W,3].
      target: class indices [B].
      method: one of `METHODS`.
    """
    model = model.double().eval()
    pixels = torch.tensor(frames, dtype=torch.float64, requires_grad=True)
    time, space = [], []
    logits = _logits(model, pixels, method, time, space)
    start = torch.zeros_like(logits)
    rows = torch.arange(len(target)), torch.tensor(target)
    start[rows] = logits.detach()[rows]  # the relevance of a class is its logit
    logits.backward(start)
    found = {"pixels": pixels.grad.numpy(), "logits": logits.detach().numpy()}
    if method == "libra_grad":
        batch, length = frames.shape[:2]
        attention, size = model.config.attention_type, model.config.patch_size
        grid = (frames.shape[2] // size, frames.shape[3] // size)
        # Seen from the last layer to the first.
        fused = [[(a * g).clamp(min=0).mean(1) for a, g in seen[::-1]] for seen in (space, time)]
        for path in PATHS[attention]:
            maps = [
                _clip_map("tibav", path, attention, *fused, clip, length, grid)
                for clip in range(batch)
            ]
            found[f"libra_tibav/{path}"] = torch.stack(maps).numpy()
    return found


def _logits(model, pixels, method, time, space) -> Tensor:
    backbone, kind = model.timesformer, model.config.attention_type
    embeddings, size = backbone.embeddings, model.config.patch_size
    batch, length, height, width, colours = pixels.shape
    h, w = height // size, width // size
    patches = pixels.reshape(batch, length, h, size, w, size, colours)
    patches = patches.permute(0, 1, 2, 4, 6, 3, 5).reshape(batch, length, h * w, -1)
    convolution = embeddings.patch_embeddings.projection
    x = _Linear.apply(patches, convolution.weight.flatten(1), convolution.bias)
    positions = embeddings.position_embeddings
    x = _Sum.apply(x, positions[:, None, 1:].expand_as(x))
    if kind != "space_only":
        x = _Sum.apply(x, embeddings.time_embeddings[:, :, None].expand_as(x))
    cls = (embeddings.cls_token + positions[:, :1]).expand(batch, 1, -1)
    heads = model.config.num_attention_heads
    for layer in backbone.encoder.layer:
        if kind == "divided_space_time":
            rows = x.transpose(1, 2).flatten(0, 1)
            out = _norm(layer.temporal_layernorm, rows)
            out = _attention(layer.temporal_attention, out, heads, method, time)
            out = _linear(layer.temporal_dense, out)
            x = _Sum.apply(rows, out).reshape(batch, h * w, length, -1).transpose(1, 2)
        # Joint tokens run with time fastest.
        tokens = x.transpose(1, 2).flatten(1, 2) if kind == "joint_space_time" else x.flatten(0, 1)
        if kind == "divided_space_time":
            first = _Copies.apply(cls, length).flatten(0, 1)
        else:
            first = cls if len(cls) == len(tokens) else cls.repeat_interleave(length, 0)
        tokens = torch.cat([first, tokens], 1)
        out = _norm(layer.layernorm_before, tokens)
        out = _attention(layer.attention, out, heads, method, space)
        if kind == "divided_space_time":
            given = _Mean.apply(out[:, :1].reshape(batch, length, 1, -1), 1)
            cls = _Sum.apply(cls, given)
            x = _Sum.apply(x, out[:, 1:].reshape(x.shape))
            cls, x = _mlp(layer, cls), _mlp(layer, x)
            continue
        tokens = _mlp(layer, _Sum.apply(tokens, out))
        cls, x = tokens[:, :1], tokens[:, 1:]
        if kind == "joint_space_time":
            x = x.reshape(batch, h * w, length, -1).transpose(1, 2)
        else:
            x = x.reshape(batch, length, h * w, -1)
    cls = cls[:, 0]
    if kind == "space_only":
        cls = _Mean.apply(cls.reshape(batch, length, -1), 1)
    return _linear(model.classifier, _norm(backbone.layernorm, cls))


def _linear(layer, x: Tensor) -> Tensor:
    return _Linear.apply(x, layer.weight, layer.bias)


def _norm(layer, x: Tensor) -> Tensor:
    return _Norm.apply(x, layer.weight, layer.bias, layer.eps)


def _mlp(layer, x: Tensor) -> Tensor:
    hidden = _Gelu.apply(_linear(layer.intermediate.dense, _norm(layer.layernorm_after, x)))
    return _Sum.apply(x, _linear(layer.output.dense, hidden))


def _attention(layer, x: Tensor, heads: int, method: str, seen: list) -> Tensor:
    rows, tokens, width = x.shape
    qkv = _linear(layer.attention.qkv, x).reshape(rows, tokens, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    if method == "libra_grad":
        weights = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5).softmax(-1).detach()
        out = _Product.apply(weights, v, True, seen)
    else:
        q = _Scaled.apply(q, (width // heads) ** -0.5)
        scores = _Product.apply(q, k.transpose(-1, -2), False, None)
        out = _Product.apply(_Softmax.apply(scores), v, False, None)
    return _linear(layer.output.dense, out.transpose(1, 2).flatten(2))


def legrad(
    model: TimesformerForVideoClassification, frames: np.ndarray, target: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns LeGrad's maps [B,T,h,w] by path; arguments as for `relevance`."""
    model = model.double().eval()
    kind, size = model.config.attention_type, model.config.patch_size
    batch, length, height, width, _ = frames.shape
    grid = (height // size, width // size)
    patches = grid[0] * grid[1]
    space, time, outputs, hooks = [], [], [], []
    for layer in model.timesformer.encoder.layer:
        hooks.append(layer.attention.attention.attn_drop.register_forward_hook(_retained(space)))
        if kind == "divided_space_time":
            dropout = layer.temporal_attention.attention.attn_drop
            hooks.append(dropout.register_forward_hook(_retained(time)))
        hooks.append(layer.register_forward_hook(lambda m, i, o: outputs.append(o[0])))
    pixels = torch.tensor(frames, dtype=torch.float64).permute(0, 1, 4, 2, 3).contiguous()
    model.timesformer(pixels)
    for hook in hooks:
        hook.remove()
    found = {path: np.zeros((batch, length, *grid)) for path in PATHS[kind]}
    for depth, tokens in enumerate(outputs):
        for clip in range(batch):
            of_frames = slice(clip * length, (clip + 1) * length)
            own = tokens[of_frames] if kind == "space_only" else tokens[clip : clip + 1]
            mean = own.reshape(-1, own.shape[-1]).mean(0)
            score = model.classifier(model.timesformer.layernorm(mean))[target[clip]]
            maps = [space[depth], time[depth]] if time else [space[depth]]
            gradients = torch.autograd.grad(score, maps, retain_graph=True)
            positive = [gradient.clamp(min=0).mean(1) for gradient in gradients]
            if kind == "joint_space_time":
                dense = [positive[0][clip]]
            else:
                dense = [_space_matrix("tibav", positive[0][of_frames], patches)]
            if time:
                of_positions = slice(clip * patches, (clip + 1) * patches)
                dense.append(_time_matrix("tibav", positive[1][of_positions], length))
            for path in found:
                through = dense[:1] if path == "spatial" else dense
                # Every frame has a cls token of its own there.
                cls = length if path == "spatial" else 1
                count = cls + patches * length
                columns = sum(matrix.sum(0) for matrix in through)[1:] / count
                clip_map = columns.reshape(*grid, length).permute(2, 0, 1)
                found[path][clip] += clip_map.numpy() / len(outputs)
    return found
