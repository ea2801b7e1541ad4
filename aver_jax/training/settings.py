"""The fields of an experiment that its compiled training step is made of, parsed once."""

import dataclasses

from ml_collections import ConfigDict, FrozenConfigDict

from aver_jax.config import to_json
from aver_jax.input import ClipShape


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """`config.optimizer`.

    Attributes:
      name: one of `optimizer.OPTIMIZERS`.
      lr: peak learning rate.
      weight_decay: of kernels.
      b1, b2: decay of AdamW's moments.
      momentum: of SGD.
      clip_norm: largest global norm of the gradients; 0: no clipping.
      accumulate: microbatches that each device works through in a step.
    """

    name: str
    lr: float
    weight_decay: float
    b1: float
    b2: float
    momentum: float
    clip_norm: float
    accumulate: int


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """`config.schedule`.

    Attributes:
      name: one of `optimizer.SCHEDULES`.
      warmup_epochs: of linear warm-up.
      plateau_factor: of the learning rate when the validation loss stops falling.
      plateau_patience: validations without improvement.
    """

    name: str
    warmup_epochs: float
    plateau_factor: float
    plateau_patience: int


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a compiled training step depends on, and nothing else: equal settings share one step.

    The seed, the fold and the data are arguments of the step.

    Attributes:
      optimizer, schedule: see there.
      frontend: `config.frontend`.
      epochs: length of the run, which the schedule needs.
      label_smoothing: of the cross-entropy.
      freeze: patterns of parameters that stay as they are.
      ema_decay: of the moving average of the variables; 0: none is kept.
      parallel: "shard_map" or "pmap".
    """

    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    frontend: FrozenConfigDict
    epochs: float
    label_smoothing: float
    freeze: tuple[str, ...]
    ema_decay: float
    parallel: str

    @classmethod
    def from_config(cls, config: ConfigDict) -> "StepSettings":
        """Returns the settings of an experiment."""
        fields = to_json(config)
        return cls(
            optimizer=OptimizerSettings(**fields["optimizer"]),
            schedule=ScheduleSettings(**fields["schedule"]),
            frontend=FrozenConfigDict(fields["frontend"]),
            freeze=tuple(fields["freeze"]),
            epochs=fields["epochs"],
            label_smoothing=fields["label_smoothing"],
            ema_decay=fields["ema_decay"],
            parallel=fields["parallel"],
        )


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """How a training reads its clips.

    Attributes:
      shape: of a clip in a batch.
      batch_size: clips of all processes together.
      seed: of the order, the slices and the augmentation.
      min_slice: smallest share of a clip that is seen at a time.
      threads: that decode.
      cache: one of `batches.CACHES`.
      validation_views: time slices of a clip in a validation.
    """

    shape: ClipShape
    batch_size: int
    seed: int
    min_slice: float
    threads: int
    cache: str
    validation_views: int = 1

    @classmethod
    def from_config(cls, config: ConfigDict) -> "DataSettings":
        """Returns the settings of an experiment."""
        data = config.data
        return cls(
            shape=ClipShape.from_config(data),
            batch_size=config.batch_size,
            seed=config.seed,
            min_slice=data.min_slice,
            threads=data.threads,
            cache=data.cache,
            validation_views=config.evaluation.views,
        )
