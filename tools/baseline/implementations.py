"""Each PyTorch implementation of each task: one blocking call, and the outputs to compare.

torch_tuned: every task, in the fastest of several variants on this device. torch_transformers:
transformers' TimeSformer as its users run it. torch_hooks: relevance by hooks, one clip at a time.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aver_jax.bench.worker.case_files import CaseFiles
from tools.baseline import augment, relevance
from tools.baseline.batches import HostBatch
from tools.baseline.choose import Choice, fastest
from tools.baseline.frontend import segments
from tools.baseline.inference import Inference, frozen
from tools.baseline.models.classifier import Classifier, Mode
from tools.baseline.train import Training

# Times as long as compiling takes compiling and trying every product's kernels, at a guess.
_AUTOTUNING = 3.0

IMPLEMENTATIONS = ("torch_tuned", "torch_transformers", "torch_hooks")


class NotSupported(Exception):
    """An implementation does not do a case; one line."""


@dataclasses.dataclass
class Prepared:
    """A case that is compiled and ready to be timed.

    Attributes:
      call: does the work once and blocks.
      outputs: arrays to compare, by name.
      choice: the variant that was chosen, and the times of the others.
      clips: per call.
    """

    call: Callable[[], Any]
    outputs: dict[str, np.ndarray]
    choice: Choice
    clips: int


def prepare_case(
    name: str,
    files: CaseFiles,
    device: torch.device,
    clips: int | None = None,
    until: float = float("inf"),
) -> Prepared:
    """Returns a case prepared by an implementation.

    Args:
      name: one of `IMPLEMENTATIONS`.
      files: the case.
      device: to run on.
      clips: per call of torch_hooks; the whole batch by default.
      until: when the choice among variants must be done, on the clock of `time.monotonic`.

    Raises:
      NotSupported: the implementation does not do this case.
    """
    task, transformer = files.case["task"], files.model.get("name") == "timesformer"
    if name == "torch_transformers":
        if not transformer or task not in ("train", "inference"):
            raise NotSupported("transformers has no such model, or no such task")
    elif name == "torch_hooks" and task != "relevance":
        raise NotSupported("hooks are for relevance")
    elif name not in IMPLEMENTATIONS:
        raise NotSupported(f"no implementation {name!r}; choose from: {', '.join(IMPLEMENTATIONS)}")
    if task == "relevance" and not transformer:
        raise NotSupported("relevance of attention needs a TimeSformer")
    prepare = {"train": _train, "inference": _inference, "relevance": _relevance}.get(task)
    if prepare:
        return prepare(name, files, device, clips, until)
    return {"spectrogram": _spectrogram, "augmentation": _augmentation, "input": _input}[task](
        files, device, until
    )


def modes(files: CaseFiles, device: torch.device) -> list[Mode]:
    """Returns the modes worth timing on a device.

    On a CPU, compiled blocks of a transformer gain some percent, and compiling everything at once
    gains nothing more and takes minutes; ResNets lose some percent in training when compiled and
    gain nothing in inference. On a GPU, eager mode is bound by memory passes, and only the
    attention over a few frames has several candidates. Blocks are compiled once for all layers.
    """
    transformer = files.model["name"] == "timesformer"
    if device.type == "cpu":
        return [Mode(), Mode(compiled=True)] if transformer else [Mode()]
    if transformer:
        kinds = ("sdpa", "products", "matmul")
        return [Mode(compiled=True, temporal=kind) for kind in kinds]
    return [Mode(compiled=True), Mode()]


def _fastest_mode(
    make: Callable[[Mode], Any], files: CaseFiles, device: torch.device, until: float
) -> Choice:
    """Returns the fastest mode; on a GPU it is also tried autotuned, then as a CUDA graph."""
    tried = {str(mode): mode for mode in modes(files, device)}
    choice = fastest({name: lambda m=mode: make(m) for name, mode in tried.items()}, until)
    if device.type != "cuda":
        return choice
    best = tried[choice.name]
    if best.compiled:
        tuned = dataclasses.replace(best, autotuned=True)
        again = {choice.name: lambda: choice.work, str(tuned): lambda: make(tuned)}
        again = fastest(again, until, _AUTOTUNING * choice.first_call_seconds)
        choice, best = _joined(choice, again), tuned if again.name == str(tuned) else best

    def graph() -> Any:
        work = make(best)
        work.call()
        work.use_graph()
        return work

    again = fastest({choice.name: lambda: choice.work, f"{best}, CUDA graph": graph}, until)
    return _joined(choice, again, on_top=True)


def _joined(choice: Choice, again: Choice, on_top: bool = False) -> Choice:
    """Returns the choice of a second round, with the times of the first.

    `on_top`: the variant of the second round reuses what the first one compiled.
    """
    first = choice.first_call_seconds
    if again.name != choice.name:
        first = again.first_call_seconds + (first if on_top else 0.0)
    seconds, failed = choice.seconds | again.seconds, choice.failed | again.failed
    return Choice(again.name, again.work, first, seconds, failed)


def _host_batch(files: CaseFiles, device: torch.device) -> HostBatch:
    return HostBatch(files.batch, files.settings["frontend"]["spectrogram"], device)


def _train(
    name: str, files: CaseFiles, device: torch.device, clips: int | None, until: float
) -> Prepared:
    batch = _host_batch(files, device)

    def make(mode: Mode) -> Training:
        model = _model(name, files, device, mode)
        return Training(model, model.network, model.state, files.settings, batch)

    if name == "torch_transformers":
        choice = fastest({"eager": lambda: make(Mode())})
    else:
        choice = _fastest_mode(make, files, device, until)
    choice.work.reset()
    losses = [choice.work.call() for _ in range(files.settings["steps"])]
    return Prepared(choice.work.call, {"losses": np.float32(losses)}, choice, len(batch))


def _inference(
    name: str, files: CaseFiles, device: torch.device, clips: int | None, until: float
) -> Prepared:
    batch = _host_batch(files, device)

    def make(mode: Mode) -> Inference:
        model = _model(name, files, device, mode)
        if name == "torch_tuned":
            frozen(model.network, files.half)
        return Inference(model, batch)

    if name == "torch_transformers":
        choice = fastest({"eager": lambda: make(Mode())})
    else:
        choice = _fastest_mode(make, files, device, until)
    return Prepared(choice.work.call, {"logits": choice.work.call().numpy()}, choice, len(batch))


def _model(name: str, files: CaseFiles, device: torch.device, mode: Mode) -> Any:
    if name == "torch_tuned":
        return Classifier(files, device, mode)
    # Here, since only this implementation needs transformers.
    from tools.baseline.models.transformers_timesformer import TransformersClassifier

    return TransformersClassifier(files, device)


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


def _relevance(
    name: str, files: CaseFiles, device: torch.device, clips: int | None, until: float
) -> Prepared:
    batch, half = _host_batch(files, device), files.half
    target = torch.tensor(files.settings["target"], device=device)

    def make(mode: Mode) -> _Explaining:
        model = Classifier(files, device, mode)
        network = model.network.eval()

        def frames_of(on_device: Any) -> Tensor:
            with torch.no_grad():
                return model.inputs(on_device)["frames"]

        if name == "torch_hooks":
            count = min(clips or len(batch), len(batch))
            hooked = relevance.Hooked(network, half)
            singles = [batch.clip(i) for i in range(count)]
            return _Explaining(singles, list(target[:count].split(1)), hooked.explain, frames_of)
        network.requires_grad_(False)
        probes = mode.compiled

        def explain(frames: Tensor, target: Tensor) -> relevance.Relevance:
            return relevance.batched(network, frames, target, half, probes)

        return _Explaining([batch], [target], explain, frames_of)

    tried = [Mode()] if name == "torch_hooks" else [Mode(), Mode(compiled=True)]
    choice = fastest({str(mode): lambda m=mode: make(m) for mode in tried}, until)
    found = choice.work.call()
    outputs = {
        name: torch.cat([getattr(of_batch, name) for of_batch in found]).cpu().numpy()
        for name in ("maps", "logits", "target")
    }
    return Prepared(choice.work.call, outputs, choice, len(outputs["maps"]))


@dataclasses.dataclass
class _OnDevice:
    """Work on arrays that are on the device."""

    work: Callable[[], Tensor]
    cuda: bool

    def call(self) -> Tensor:
        with torch.no_grad():
            value = self.work()
        if self.cuda:
            torch.cuda.synchronize()
        return value


def _eager_or_compiled(
    function: Callable[..., Tensor],
    arguments: tuple[Any, ...],
    device: torch.device,
    until: float,
) -> Choice:
    def variant(function: Callable[..., Tensor]) -> Callable[[], _OnDevice]:
        return lambda: _OnDevice(lambda: function(*arguments), device.type == "cuda")

    # Here the shapes never change.
    compiled = torch.compile(function, dynamic=False)
    return fastest({"eager": variant(function), "compiled": variant(compiled)}, until)


def _spectrogram(files: CaseFiles, device: torch.device, until: float) -> Prepared:
    settings = files.settings["frontend"]["spectrogram"]
    batch = _host_batch(files, device).on_device()

    def work(audio: Tensor, length: Tensor) -> Tensor:
        return segments(settings, audio, length).contiguous()

    choice = _eager_or_compiled(work, (batch.audio, batch.length), device, until)
    outputs = {"audio": choice.work.call().cpu().numpy()}
    return Prepared(choice.work.call, outputs, choice, len(batch.label))


def _augmentation(files: CaseFiles, device: torch.device, until: float) -> Prepared:
    amounts = files.settings["frontend"]["augment"]
    frames = _host_batch(files, device).on_device().frames
    clips, _, height, width, _ = frames.shape

    def work(frames: Tensor) -> Tensor:
        factors = augment.random_factors(amounts, clips, height, width, device)
        # In the order of axes of aver_jax.
        return augment.augmented(frames, factors, amounts).contiguous()

    choice = _eager_or_compiled(work, (frames,), device, until)
    # The noise of aver_jax cannot be drawn here.
    given = augment.Factors(
        *(torch.tensor(files.factors[name], device=device) for name in augment.Factors._fields)
    )
    checked = augment.augmented(frames[: len(given.sigma)], given, amounts | {"noise": 0.0})
    return Prepared(choice.work.call, {"frames": checked.cpu().numpy()}, choice, clips)


class _Loading:
    """Host batches; one per worker and call, since workers finish at the same time."""

    def __init__(self, loader: Any) -> None:
        self._batches = iter(loader)
        self.count = max(1, loader.num_workers)

    def call(self) -> list[Mapping[str, Tensor]]:
        return [next(self._batches) for _ in range(self.count)]


def _input(files: CaseFiles, device: torch.device, until: float) -> Prepared:
    # Here, since other tasks do without tensorflow_datasets.
    from tools.baseline.data import Clips, loader

    case, settings = files.case, files.settings
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
    # Prefetched batches must not be timed.
    for _ in range(3):
        choice.work.call()
    return Prepared(choice.work.call, {}, choice, size * choice.work.count)
