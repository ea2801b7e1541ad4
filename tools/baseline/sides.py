"""What each torch side does in each task: one blocking call, and the result that others must meet.

torch_tuned: everything, each task in the ways that may be fastest on this device, of which the
fastest is kept. torch_transformers: transformers' TimeSformer as its users run it. torch_hooks:
relevance one clip at a time, by hooks.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.baseline import augment, relevance
from tools.baseline.batches import HostBatch
from tools.baseline.choose import Choice, fastest
from tools.baseline.classifier import Classifier, Mode
from tools.baseline.exchange import Exchange
from tools.baseline.frontend import segments
from tools.baseline.inference import Inference, frozen
from tools.baseline.train import Training

SIDES = ("torch_tuned", "torch_transformers", "torch_hooks")


class NotDone(Exception):
    """A side does not do a case; one line."""


@dataclasses.dataclass
class Ready:
    """A side made ready.

    Attributes:
      call: does the work once and blocks.
      result: what the parent compares.
      choice: the way that was kept, and how long others took.
      clips: that one call handles.
    """

    call: Callable[[], Any]
    result: dict[str, np.ndarray]
    choice: Choice
    clips: int


def make_ready(
    side: str, exchange: Exchange, device: torch.device, clips: int | None = None
) -> Ready:
    """Make a side ready for a case.

    Args:
      side: one of `SIDES`.
      exchange: the case.
      device: to run on.
      clips: of the batch that a call of torch_hooks handles; all by default.

    Raises:
      NotDone: the side does not do this case.
    """
    task, transformer = exchange.case["task"], exchange.model.get("name") == "timesformer"
    if side == "torch_transformers":
        if not transformer or task not in ("train", "inference"):
            raise NotDone("transformers has no such model, or no such task")
    elif side == "torch_hooks" and task != "relevance":
        raise NotDone("hooks are for relevance")
    elif side not in SIDES:
        raise NotDone(f"there is no side {side!r}, only {', '.join(SIDES)}")
    if task == "relevance" and not transformer:
        raise NotDone("relevance of attention needs a TimeSformer")
    kind = {"train": _train, "inference": _inference, "relevance": _relevance}.get(task)
    if kind:
        return kind(side, exchange, device, clips)
    return {"spectrogram": _spectrogram, "augmentation": _augmentation, "input": _input}[task](
        exchange, device
    )


def modes(exchange: Exchange, device: torch.device) -> list[Mode]:
    """Return the modes worth timing on a device.

    On a CPU matrix products take nearly all the time of a transformer, and compiled blocks gain
    some percent; compiling everything at once gains nothing more and takes minutes. ResNets there
    lose some percent in training when compiled, and gain nothing in inference. On a GPU eager is
    bound by memory passes; the question is the attention over a few frames. Blocks are compiled
    once for all layers, which the autotuning of `_fastest_mode` builds on.
    """
    transformer = exchange.model["name"] == "timesformer"
    if device.type == "cpu":
        return [Mode("no"), Mode("blocks")] if transformer else [Mode("no")]
    if transformer:
        kinds = ("sdpa", "products", "matmul")
        return [Mode("blocks", temporal=kind) for kind in kinds]
    return [Mode("blocks"), Mode("no")]


def _fastest_mode(make: Callable[[Mode], Any], exchange: Exchange, device: torch.device) -> Choice:
    """Time the modes; on a GPU also the best one autotuned, and then that as a CUDA graph."""
    tried = {str(mode): mode for mode in modes(exchange, device)}
    choice = fastest({name: lambda m=mode: make(m) for name, mode in tried.items()})
    if device.type != "cuda":
        return choice
    best = tried[choice.name]
    if best.compiled != "no":
        tuned = dataclasses.replace(best, autotuned=True)
        again = fastest({choice.name: lambda: choice.work, str(tuned): lambda: make(tuned)})
        choice, best = _joined(choice, again), tuned if again.name == str(tuned) else best

    def graph() -> Any:
        work = make(best)
        work.call()
        work.use_graph()
        return work

    again = fastest({choice.name: lambda: choice.work, f"{best}, CUDA graph": graph})
    return _joined(choice, again, on_top=True)


def _joined(choice: Choice, again: Choice, on_top: bool = False) -> Choice:
    """Return the choice of a second round, with what the first one took.

    `on_top` says that the second round's way builds on what the first one has compiled.
    """
    first = choice.first_call_seconds
    if again.name != choice.name:
        first = again.first_call_seconds + (first if on_top else 0.0)
    seconds, failed = choice.seconds | again.seconds, choice.failed | again.failed
    return Choice(again.name, again.work, first, seconds, failed)


def _host_batch(exchange: Exchange, device: torch.device) -> HostBatch:
    return HostBatch(exchange.batch, exchange.settings["frontend"]["spectrogram"], device)


def _train(side: str, exchange: Exchange, device: torch.device, clips: int | None) -> Ready:
    batch = _host_batch(exchange, device)

    def make(mode: Mode) -> Training:
        model = _model(side, exchange, device, mode)
        return Training(model, model.network, model.state, exchange.settings, batch)

    if side == "torch_transformers":
        choice = fastest({"eager": lambda: make(Mode())})
    else:
        choice = _fastest_mode(make, exchange, device)
    choice.work.reset()
    losses = [choice.work.call() for _ in range(exchange.settings["steps"])]
    return Ready(choice.work.call, {"losses": np.float32(losses)}, choice, len(batch))


def _inference(side: str, exchange: Exchange, device: torch.device, clips: int | None) -> Ready:
    batch = _host_batch(exchange, device)

    def make(mode: Mode) -> Inference:
        model = _model(side, exchange, device, mode)
        if side == "torch_tuned":
            frozen(model.network, exchange.half)
        return Inference(model, batch)

    if side == "torch_transformers":
        choice = fastest({"eager": lambda: make(Mode())})
    else:
        choice = _fastest_mode(make, exchange, device)
    return Ready(choice.work.call, {"logits": choice.work.call().numpy()}, choice, len(batch))


def _model(side: str, exchange: Exchange, device: torch.device, mode: Mode) -> Any:
    if side == "torch_tuned":
        return Classifier(exchange, device, mode)
    # Here, since the other sides do without transformers.
    from tools.baseline.transformers_timesformer import TransformersClassifier

    return TransformersClassifier(exchange, device)


@dataclasses.dataclass
class _Explaining:
    """Relevance of a host batch.

    Attributes:
      batches: each explained by itself.
      targets: int64, the classes of each.
      explain: (float frames, target) -> Relevance, on the device.
      frames_of: a device batch -> float frames.
    """

    batches: list[HostBatch]
    targets: list[Tensor]
    explain: Callable[[Tensor, Tensor], relevance.Relevance]
    frames_of: Callable[[Any], Tensor]

    def call(self) -> list[relevance.Relevance]:
        found = [
            self.explain(self.frames_of(batch.on_device()), target)
            for batch, target in zip(self.batches, self.targets, strict=True)
        ]
        if self.targets[0].is_cuda:
            torch.cuda.synchronize()
        return found


def _relevance(side: str, exchange: Exchange, device: torch.device, clips: int | None) -> Ready:
    batch, half = _host_batch(exchange, device), exchange.half
    target = torch.tensor(exchange.settings["target"], device=device)

    def make(mode: Mode) -> _Explaining:
        model = Classifier(exchange, device, mode)
        network = model.network.eval()

        def frames_of(on_device: Any) -> Tensor:
            with torch.no_grad():
                return model.inputs(on_device)["frames"]

        if side == "torch_hooks":
            count = min(clips or len(batch), len(batch))
            hooked = relevance.Hooked(network, half)
            singles = [batch.clip(i) for i in range(count)]
            return _Explaining(singles, list(target[:count].split(1)), hooked.explain, frames_of)
        network.requires_grad_(False)
        probes = mode.compiled != "no"

        def explain(frames: Tensor, target: Tensor) -> relevance.Relevance:
            return relevance.batched(network, frames, target, half, probes)

        return _Explaining([batch], [target], explain, frames_of)

    ways = [Mode("no")] if side == "torch_hooks" else [Mode("no"), Mode("blocks")]
    choice = fastest({str(mode): lambda m=mode: make(m) for mode in ways})
    found = choice.work.call()
    result = {
        name: torch.cat([getattr(of_batch, name) for of_batch in found]).cpu().numpy()
        for name in ("maps", "logits", "target")
    }
    return Ready(choice.work.call, result, choice, len(result["maps"]))


@dataclasses.dataclass
class _OnDevice:
    """Work on what is on the device already."""

    work: Callable[[], Tensor]
    cuda: bool

    def call(self) -> Tensor:
        with torch.no_grad():
            value = self.work()
        if self.cuda:
            torch.cuda.synchronize()
        return value


def _eager_or_compiled(
    function: Callable[..., Tensor], arguments: tuple[Any, ...], device: torch.device
) -> Choice:
    def way(function: Callable[..., Tensor]) -> Callable[[], _OnDevice]:
        return lambda: _OnDevice(lambda: function(*arguments), device.type == "cuda")

    # Here the shapes never change.
    compiled = torch.compile(function, dynamic=False)
    return fastest({"eager": way(function), "compiled": way(compiled)})


def _spectrogram(exchange: Exchange, device: torch.device) -> Ready:
    settings = exchange.settings["frontend"]["spectrogram"]
    batch = _host_batch(exchange, device).on_device()

    def work(audio: Tensor, length: Tensor) -> Tensor:
        return segments(settings, audio, length).contiguous()

    choice = _eager_or_compiled(work, (batch.audio, batch.length), device)
    result = {"audio": choice.work.call().cpu().numpy()}
    return Ready(choice.work.call, result, choice, len(batch.label))


def _augmentation(exchange: Exchange, device: torch.device) -> Ready:
    amounts = exchange.settings["frontend"]["augment"]
    frames = _host_batch(exchange, device).on_device().frames
    clips, _, height, width, _ = frames.shape

    def work(frames: Tensor) -> Tensor:
        factors = augment.random_factors(amounts, clips, height, width, device)
        # In the order of axes in which the other side gives it.
        return augment.augmented(frames, factors, amounts).contiguous()

    choice = _eager_or_compiled(work, (frames,), device)
    # The other side's noise cannot be drawn here.
    given = augment.Factors(
        *(torch.tensor(exchange.factors[name], device=device) for name in augment.Factors._fields)
    )
    checked = augment.augmented(frames[: len(given.sigma)], given, amounts | {"noise": 0.0})
    return Ready(choice.work.call, {"frames": checked.cpu().numpy()}, choice, clips)


class _Loading:
    """Batches on the host: as many a call as there are workers, which finish at the same time."""

    def __init__(self, loader: Any) -> None:
        self._batches = iter(loader)
        self.count = max(1, loader.num_workers)

    def call(self) -> list[Mapping[str, Tensor]]:
        return [next(self._batches) for _ in range(self.count)]


def _input(exchange: Exchange, device: torch.device) -> Ready:
    # Here, since other tasks do without tensorflow_datasets.
    from tools.baseline.data import Clips, loader

    case, settings = exchange.case, exchange.settings
    clips = Clips(
        settings["dataset"],
        case["num_frames"],
        case["image_size"],
        max_seconds=case["seconds"] or 6.0,
        modalities=case["modalities"],
    )
    workers, size = settings["threads"], case["batch_size"]
    made = loader(clips, size, workers, pinned=device.type == "cuda")
    choice = fastest({f"{workers} workers": lambda: _Loading(made)})
    # What is ready before anyone asks.
    for _ in range(3):
        choice.work.call()
    return Ready(choice.work.call, {}, choice, size * choice.work.count)
