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
from aver_jax.relevance import attention, grad_cam, input_gradient
from aver_jax.relevance.capture import Captured, captured, fused_attention_maps

METHODS = (*attention.METHODS, *grad_cam.METHODS, *input_gradient.METHODS)


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
    of_attention = tuple(attention.METHODS) if model.has_attention else ()
    return (*of_attention, *grad_cam.METHODS, *input_gradient.METHODS)


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
) -> Relevance:
    """Explains a batch: the relevance of every place for a class, in one jitted call.

    A TimeSformer is explained by its attention (du Toit 2022; `head_fusion` and `rollout` have the
    equations): `tibav` (Chefer et al., ICCV 2021) and `rollout_grad` (Gildenblat) explain a class;
    `rollout_min`, `rollout_mean` and `rollout_max` (Abnar & Zuidema 2020) know attention alone, so
    that the class plays no part.

    Every network is explained by `grad_cam`, `grad_cam_plus_plus` and `eigen_cam`, which knows no
    class (`grad_cam` has the equations): of the last maps of a ResNet, and the logits of the
    prediction, the fused ones of an MRPN; of the patches that a TimeSformer's last layer reads
    after its norm. And by the gradient of its input: `saliency`, `input_x_gradient`,
    `integrated_gradients`, `smooth_grad` (`input_gradient`).

    Paths: `space_time` goes through all attentions of the model; `spatial` treats every frame on
    its own, by its spatial attention alone (du Toit's form). Joint attention has only the first,
    space-only attention only the second. For Grad-CAM they say what a channel's weight is the mean
    over: the clip, or each frame. For the gradient of the input they play no part.

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

    Returns:
      Maps [B,T,h,w]: h x w patches of a frame, places of the network's last maps (T may then be
      fewer than the frames, where a network joins some), or pixels. Of sound they are [B,N,h,w],
      one per segment, h along frequency and w along time (`frontend.spectrogram.assembled` puts
      them together), and 0 in segments past a clip's end.

    Raises:
      ValueError: for a method or path that the model lacks, a modality that it lacks or the inputs
        do not hold, or a target that does not fit the batch and the classes.
    """
    method = method or methods_of(model)[0]
    array = _check(model, inputs, method, path, modality)
    batch, model = inputs[array].shape[0], inference_form(model, jax.default_backend())
    chosen = _checked_target(target, batch, model.num_classes)
    # Under a caller's jit, where arrays are traced, that one's options are the compiler's.
    outermost = not isinstance(jnp.zeros(()), jax.core.Tracer)
    compiled = _compiled(model, method, path, array, _shared_out(inputs[array]), outermost)
    raw, scaled, *rest = compiled(variables, inputs, chosen)
    return Relevance(scaled if normalize else raw, *rest)


def traced(
    model: Any,
    variables: Any,
    inputs: Mapping[str, Any],
    method: str,
    path: str = "",
    modality: str = "",
) -> jax.stages.Traced:
    """Returns the function behind `explain`, traced for where the shapes of its inputs lie.

    Args:
      model: as in `explain`.
      variables, inputs: arrays or their shapes with shardings.
      method, path: as in `explain`; "" is the model's default path.
      modality: "video" or "audio"; "" is the model's first.

    Raises:
      ValueError: as `explain`.
    """
    path, modality = path or paths_of(model)[0], modality or str(model.modalities[0])
    array = _check(model, inputs, method, path, modality)
    batch = inputs[array]
    # Laid out by the compiler, as that of `explain` is, so that both have one executable.
    target = jax.ShapeDtypeStruct(batch.shape[:1], jnp.int32)
    platform = next(iter(batch.sharding.device_set)).platform
    model = inference_form(model, platform)
    compiled = _compiled(model, method, path, array, _shared_out(batch))
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
    outermost: bool = True,
) -> Callable[..., tuple[Array, ...]]:
    of_inputs = _attention_maps
    if method in grad_cam.METHODS:
        of_inputs = _class_activation
    elif method in input_gradient.METHODS:
        of_inputs = _input_gradient

    def maps(variables: Any, inputs: Mapping[str, Array], target: Array) -> tuple[Array, ...]:
        found, raw, valid = of_inputs(model, variables, inputs, target, method, path, modality)
        # Both come back: compiling again for the other costs seconds, scaling next to nothing.
        return raw, _scaled(raw, valid), found.logits, found.target, raw.max(axis=(1, 2, 3))

    options = model.compiler_options if outermost else None
    if sharding is None:
        return jax.jit(maps, compiler_options=options)
    # Every device explains its clips: kernels are not divided by the compiler.
    clips = PartitionSpec(sharding.spec[0])
    specs = (PartitionSpec(), clips, clips)
    return jax.jit(
        jax.shard_map(maps, mesh=sharding.mesh, in_specs=specs, out_specs=clips, check_vma=False),
        compiler_options=options,
    )


def _attention_maps(model, variables, inputs, target, method, path, modality):
    taps, how = attention.PATHS[model.attention][path], attention.METHODS[method]
    if how.gradient:
        found = fused_attention_maps(model, variables, inputs, taps, target, how.fuse)
        fused = found.gradient
    else:
        found = captured(model, variables, inputs, taps, target, False)
        fused = {tap: how.fuse(found.taps[tap]) for tap in taps}
    batch, frames, height, width = inputs[modality].shape[:4]
    grid = (height // model.patch_size, width // model.patch_size)
    row = attention.cls_row(fused, method, path, batch, frames)
    return found, row.reshape(batch, frames, *grid), jnp.ones((batch, frames), bool)


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
    return jnp.where(varies, (maps - low) / jnp.where(varies, high - low, 1), 0)


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
