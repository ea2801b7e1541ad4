"""Relevance maps of a batch of clips: one jitted call for every model, method and path."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from aver_jax.modality import Modality
from aver_jax.models import inference_form
from aver_jax.relevance import attention, grad_cam, input_gradient, legrad, propagation
from aver_jax.relevance.capture import Captured, captured, fused_attention_maps
from aver_jax.relevance.head_fusion import without_lowest

_OF_TRANSFORMERS = (*attention.METHODS, *legrad.METHODS, *propagation.METHODS)
_OF_ALL = (*grad_cam.METHODS, *input_gradient.METHODS)
METHODS = (*_OF_TRANSFORMERS, *_OF_ALL)


class Relevance(NamedTuple):
    """maps: float32 [B,T,h,w]. logits: float32 [B,C]. target: int32 [B].

    peak: float32 [B], the highest relevance before scaling: what tells a map that is nothing but
    noise scaled up from one that matters. 0 where Grad-CAM finds nothing that speaks for the class.
    """

    maps: Array
    logits: Array
    target: Array
    peak: Array


def methods_of(model: Any) -> tuple[str, ...]:
    """Returns the methods that explain a model, its default first."""
    return METHODS if model.has_attention else _OF_ALL


def knows_class(method: str) -> bool:
    """Returns whether a method's maps are of a class, rather than the same for every class."""
    if method in attention.METHODS:
        return attention.METHODS[method].gradient
    return method != "eigen_cam"


def passes_of(method: str) -> int:
    """Returns how many forward passes a method's call costs; a gradient of activations is one."""
    if method in attention.METHODS:
        return 1 + attention.METHODS[method].gradient
    if method in ("integrated_gradients", "smooth_grad"):
        return 1 + 2 * input_gradient.STEPS
    return 1 if method == "eigen_cam" else 2


def paths_of(model: Any) -> tuple[str, ...]:
    """Returns the paths that a model's relevance can go through, its default first."""
    return tuple(attention.PATHS[model.attention]) if model.has_attention else grad_cam.PATHS


def explain(
    model: Any,
    variables: Mapping[str, Any],
    inputs: Mapping[str, Array],
    method: str | None = None,
    path: str = "space_time",
    modality: str = "video",
    target: Any = None,
    normalize: bool = True,
    chunk: int | None = None,
    discard_ratio: float = 0.0,
) -> Relevance:
    """Explains a batch: the relevance of every place for a class, in one jitted call.

    docs/relevance.md is an introduction. A TimeSformer is explained by its attention (du Toit 2022;
    `head_fusion` and `rollout` have the equations): `tibav` (Chefer et al., ICCV 2021) and
    `rollout_grad` (Gildenblat) explain a class; `rollout_min`, `rollout_mean` and `rollout_max`
    (Abnar & Zuidema 2020) know attention alone, so that the class plays no part. `legrad`
    (Bousselham et al. 2024) takes the gradient of attention in each layer by itself. Rules for
    gradients (`propagation`, `models.gradient_rules`) give `libra_grad` and `libra_tibav` (Mehri et
    al. 2024) and `attn_lrp` (Achtibat et al. 2024).

    Every network is explained by `grad_cam`, `grad_cam_plus_plus` and `eigen_cam`, which knows no
    class (`grad_cam` has the equations): of the last maps of a ResNet, and the logits of the
    prediction, the fused ones of an MRPN; of the patches that a TimeSformer's last layer reads
    after its norm. And by the gradient of its input: `saliency`, `input_x_gradient`,
    `integrated_gradients`, `smooth_grad` (`input_gradient`).

    Paths: `space_time` goes through all attentions of the model; `spatial` treats every frame on
    its own, by its spatial attention alone (du Toit's form). Joint attention has only the first,
    space-only attention only the second. For Grad-CAM they say what a channel's weight is the mean
    over: the clip, or each frame. For the gradient of the input, `libra_grad` and `attn_lrp` they
    play no part.

    Args:
      model: hashable, as Linen modules are.
      variables: its collections.
      inputs: as the front end gives them; `frames` float [B,T,H,W,3], `audio` float [B,N,F,W] with
        `audio_segments` int [B].
      method: one of `methods_of(model)`; None is the first of them.
      path: one of `paths_of(model)`.
      modality: whose relevance, "video" (or "frames", its array) or "audio".
      target: class index, one for all or int [B]; None explains the predicted class of each clip.
      normalize: min-max scaled to 0..1 over a clip's whole volume, so that its frames compare (a
        constant map becomes 0). False gives the cls row of the recursion, the class activation
        map or the gradient's map as it is (non-negative).
      chunk: clips that are explained at a time, so that memory does not grow with the batch; of
        clips on several devices, at a time on each. None: all of them.
      discard_ratio: of rollouts, the share of each fused map's lowest entries that become 0
        (Gildenblat; `head_fusion.without_lowest`).

    Returns:
      Maps [B,T,h,w]: h x w patches of a frame, places of the network's last maps (T may then be
      fewer than the frames, where a network joins some), or pixels. Of sound they are [B,N,h,w],
      one per segment, h along frequency and w along time (`frontend.spectrogram.assembled` puts
      them together), and 0 in segments past a clip's end.

    Raises:
      ValueError: for a method or path that the model lacks, a modality that it lacks or the inputs
        do not hold, a target that does not fit the batch and the classes, a chunk of no clips, or
        a discard ratio out of range or of another method.
    """
    method = method or methods_of(model)[0]
    array = _check(model, inputs, method, path, modality)
    how = _checked_options(method, chunk, discard_ratio)
    batch, model = inputs[array].shape[0], inference_form(model, jax.default_backend())
    chosen = _checked_target(target, batch, model.num_classes)
    # Under a caller's jit, where arrays are traced, that one's options are the compiler's.
    outermost = not isinstance(jnp.zeros(()), jax.core.Tracer)
    shared = _shared_out(inputs[array])
    compiled = _compiled(model, method, path, array, shared, outermost, *how)
    raw, scaled, *rest = compiled(variables, inputs, chosen)
    return Relevance(scaled if normalize else raw, *rest)


def traced(
    model: Any,
    variables: Any,
    inputs: Mapping[str, Any],
    method: str,
    path: str = "",
    modality: str = "",
    chunk: int | None = None,
) -> jax.stages.Traced:
    """Returns the function behind `explain`, traced for where the shapes of its inputs lie.

    Args:
      model: as in `explain`.
      variables, inputs: arrays or their shapes with shardings.
      method, path: as in `explain`; "" is the model's default path.
      modality: "video" or "audio"; "" is the model's first.
      chunk: as in `explain`.

    Raises:
      ValueError: as `explain`.
    """
    path, modality = path or paths_of(model)[0], modality or str(model.modalities[0])
    array = _check(model, inputs, method, path, modality)
    how = _checked_options(method, chunk, 0.0)
    batch = inputs[array]
    # Laid out by the compiler, as that of `explain` is, so that both have one executable.
    target = jax.ShapeDtypeStruct(batch.shape[:1], jnp.int32)
    platform = next(iter(batch.sharding.device_set)).platform
    model = inference_form(model, platform)
    compiled = _compiled(model, method, path, array, _shared_out(batch), True, *how)
    return compiled.trace(variables, inputs, target)


def _shared_out(batch: Any) -> NamedSharding | None:
    """Returns how clips lie on several devices, None where they lie on one."""
    sharding = getattr(batch, "sharding", None)
    several = isinstance(sharding, NamedSharding) and len(sharding.device_set) > 1
    return sharding if several and not sharding.is_fully_replicated else None


@functools.lru_cache(maxsize=32)
def _compiled(
    model: Any,
    method: str,
    path: str,
    modality: str,
    sharding: NamedSharding | None,
    outermost: bool,
    chunk: int | None,
    discard_ratio: float,
) -> Callable[..., tuple[Array, ...]]:
    of_inputs = next(family for methods, family in _FAMILIES if method in methods)
    if discard_ratio:
        of_inputs = functools.partial(of_inputs, discard_ratio=discard_ratio)

    def maps(variables: Any, inputs: Mapping[str, Array], target: Array) -> tuple[Array, ...]:
        found, raw, valid = of_inputs(model, variables, inputs, target, method, path, modality)
        # Both come back: compiling again for the other costs seconds, scaling next to nothing.
        return raw, _scaled(raw, valid), found.logits, found.target, raw.max(axis=(1, 2, 3))

    options = model.compiler_options if outermost else None
    maps = _in_chunks(maps, chunk) if chunk else maps
    if sharding is None:
        return jax.jit(maps, compiler_options=options)
    # Every device explains its clips: kernels are not divided by the compiler.
    clips = PartitionSpec(sharding.spec[0])
    specs = (PartitionSpec(), clips, clips)
    return jax.jit(
        jax.shard_map(maps, mesh=sharding.mesh, in_specs=specs, out_specs=clips, check_vma=False),
        compiler_options=options,
    )


def _in_chunks(maps: Callable[..., Any], chunk: int) -> Callable[..., Any]:
    """Returns a function like `maps`, which explains a number of clips at a time."""

    def chunked(variables: Any, inputs: Mapping[str, Array], target: Array) -> tuple[Array, ...]:
        batch = len(target)
        if batch <= chunk:
            return maps(variables, inputs, target)
        fill = -batch % chunk

        def split(x: Array) -> Array:
            if fill:
                x = jnp.concatenate([x, jnp.repeat(x[-1:], fill, axis=0)])
            return x.reshape(-1, chunk, *x.shape[1:])

        parts = jax.tree.map(split, (inputs, target))
        found = jax.lax.map(lambda part: maps(variables, *part), parts)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:batch], found)

    return chunked


def _attention_maps(model, variables, inputs, target, method, path, modality, discard_ratio=0.0):
    taps, how = attention.PATHS[model.attention][path], attention.METHODS[method]
    if how.gradient:
        found = fused_attention_maps(model, variables, inputs, taps, target, how.fuse, how.rules)
        fused = found.gradient
    else:
        found = captured(model, variables, inputs, taps, target, False)
        fused = {tap: how.fuse(found.taps[tap]) for tap in taps}
    if discard_ratio:
        fused = {tap: without_lowest(maps, discard_ratio) for tap, maps in fused.items()}
    batch, frames = inputs[modality].shape[:2]
    row = attention.cls_row(fused, method, path, batch, frames)
    return found, _on_grid(row, model, inputs[modality]), jnp.ones((batch, frames), bool)


def _legrad(model, variables, inputs, target, method, path, modality):
    del method  # there is one
    taps = attention.PATHS[model.attention][path]
    found = legrad.sensitivity(model, variables, inputs, taps, target)
    batch, frames = inputs[modality].shape[:2]
    row = legrad.patch_relevance(found.gradient, batch, frames)
    return found, _on_grid(row, model, inputs[modality]), jnp.ones((batch, frames), bool)


def _on_grid(row: Array, model: Any, frames: Array) -> Array:
    """Returns the relevance of patches [B,T,N] as maps [B,T,h,w]."""
    height, width = (side // model.patch_size for side in frames.shape[2:4])
    return row.reshape(*row.shape[:2], height, width)


def _propagation(model, variables, inputs, target, method, path, modality):
    del path  # all of the network
    logits, chosen, pixels = propagation.propagated(model, variables, inputs, target, method)
    raw = jnp.maximum(propagation.patch_sums(pixels, model.patch_size), 0)
    return Captured(logits, chosen, {}, {}), raw, _valid(inputs, raw, modality)


def _class_activation(model, variables, inputs, target, method, path, modality):
    tap = "norm1" if model.has_attention else grad_cam.TAPS[modality]
    found = captured(model, variables, inputs, (tap,), target, method != "eigen_cam")
    maps, gradient = found.taps[tap], found.gradient.get(tap)
    if model.has_attention:
        batch, _, *sides = inputs[modality].shape[:4]
        grid = tuple(side // model.patch_size for side in sides)
        maps = attention.patch_maps(maps, model.attention, batch, grid)
        if gradient is not None:
            gradient = attention.patch_maps(gradient, model.attention, batch, grid)
    valid = _valid(inputs, maps, modality)
    return found, grad_cam.class_activation(method, maps, gradient, valid, path), valid


def _input_gradient(model, variables, inputs, target, method, path, modality):
    del path  # of the maps inside a network
    valid = _valid(inputs, inputs[modality], modality)
    logits, chosen, raw = input_gradient.input_relevance(
        model, variables, inputs, target, method, modality, valid
    )
    return Captured(logits, chosen, {}, {}), raw, valid


_FAMILIES = (
    (attention.METHODS, _attention_maps),
    (legrad.METHODS, _legrad),
    (propagation.METHODS, _propagation),
    (grad_cam.METHODS, _class_activation),
    (input_gradient.METHODS, _input_gradient),
)


def _valid(inputs: Mapping[str, Array], maps: Array, array: str) -> Array:
    """Returns which frames or segments are no padding, bool [B,T]."""
    if array == "audio":
        return jnp.arange(maps.shape[1])[None] < inputs["audio_segments"][:, None]
    return jnp.ones(maps.shape[:2], bool)


def _scaled(maps: Array, valid: Array) -> Array:
    """Returns maps min-max scaled over the valid frames of each clip."""
    inside = valid[..., None, None]
    low = jnp.min(jnp.where(inside, maps, jnp.inf), axis=(1, 2, 3), keepdims=True)
    high = jnp.max(maps, axis=(1, 2, 3), keepdims=True)
    # Below this the differences are float32 rounding, and scaling them up would make a picture.
    varies = inside & (high - low > 1e-6 * high)
    # A compiler may compute a value and the minimum of all in two ways, a rounding apart.
    return jnp.where(varies, jnp.clip((maps - low) / jnp.where(varies, high - low, 1), 0, 1), 0)


def _check(model: Any, inputs: Mapping[str, Array], method: str, path: str, modality: str) -> str:
    """Returns the name of the modality's array in the inputs."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if method not in methods_of(model):
        raise ValueError(
            f"method {method!r} does not explain a {type(model).__name__}; "
            f"it offers {', '.join(methods_of(model))}"
        )
    if path not in grad_cam.PATHS:
        raise ValueError(f"path is {path!r}; expected 'space_time' or 'spatial'")
    if path not in paths_of(model):
        raise ValueError(
            f"path {path!r} does not exist in {model.attention} attention; "
            f"use path={paths_of(model)[0]!r}"
        )
    names = (*Modality, "frames")
    array = Modality(modality).array if modality in names else ""
    known = [repr(str(name)) for name in model.modalities]
    if array not in inputs or Modality(modality) not in model.modalities:
        raise ValueError(
            f"modality is {modality!r} and the inputs are {', '.join(sorted(inputs))}; a "
            f"{type(model).__name__} is explained by modality {' or '.join(known)}"
        )
    if isinstance(model.num_classes, Mapping):
        raise ValueError(
            f"the model has several targets ({', '.join(model.num_classes)}); relevance explains "
            "the classes of models with one"
        )
    return array


def _checked_options(
    method: str, chunk: int | None, discard_ratio: float
) -> tuple[int | None, float]:
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected at least 1 clip, or None for all")
    if not 0 <= discard_ratio < 1:
        raise ValueError(f"discard_ratio is {discard_ratio}; expected at least 0, less than 1")
    rollouts = [name for name, how in attention.METHODS.items() if how.rollout]
    if discard_ratio and method not in rollouts:
        raise ValueError(
            f"discard_ratio is of {', '.join(rollouts)}; method {method!r} discards nothing"
        )
    return chunk, float(discard_ratio)


def _checked_target(target: Any, batch: int, num_classes: int) -> Array:
    """Returns int32 [B], with -1 for the predicted class."""
    if target is None:
        return jnp.full(batch, -1, jnp.int32)
    target = jnp.asarray(target)
    if not jnp.issubdtype(target.dtype, jnp.integer) or target.shape not in ((), (batch,)):
        raise ValueError(
            f"target is {target.dtype} {list(target.shape)}; expected a class index, or integers "
            f"[{batch}], one for each clip"
        )
    if not isinstance(target, jax.core.Tracer):
        values = np.ravel(target)
        wrong = values[(values < 0) | (values >= num_classes)]
        if wrong.size:
            raise ValueError(
                f"target has class {wrong[0]}; expected 0 to {num_classes - 1}, or None for the "
                "predicted class"
            )
    return jnp.broadcast_to(target.astype(jnp.int32), (batch,))
