r"""Face and voice together: MRPN and what it is compared with (Chang 2021, chapter 5).

The synthetic corpus, on 2 CPU cores (about 4 minutes; unseen actors: 69% WAR by the voice, 81% by
the face, 89% by both):

    aver train --config mrpn.py:network=n2,size=small,dataset=synthetic \
        --config.data.path=DATA --workdir RUN

CREMA-D or RAVDESS at the thesis' sizes, on an accelerator:

    aver train --config mrpn.py:network=n2,size=thesis,dataset=ravdess,protocol=ravdess_pairs \
        --config.data.path=DATA --config.init.video/cnn=CONVERTED --workdir RUN

Networks: `audio` and `video` are one branch alone (as configs/resnet_lstm.py); `n0`, `n1` and `n2`
train everything together, n2 is MRPN; `late` trains the fusion of two such branches and leaves them
as they are, in three commands:

    aver train --config mrpn.py:network=video,size=small,dataset=synthetic \
        --config.data.path=DATA --workdir V
    aver train --config mrpn.py:network=audio,size=small,dataset=synthetic \
        --config.data.path=DATA --workdir A
    aver train --config mrpn.py:network=late,size=small,dataset=synthetic \
        --config.data.path=DATA --workdir L \
        --config.init.video=V --config.init.video_scoring=V \
        --config.init.audio=A --config.init.audio_scoring=A

The three must share protocol and fold (or the branches have seen the clips that test the fusion),
classes, sizes, and the front end that the branches learned with. `aver experiments mrpn_table`
trains and compares all of these.

Expected at size=thesis: the thesis reports 91.47% (RAVDESS, 12 pairs) and 80.59% (CREMA-D, 9
splits) for n2, means of its Tables 5.2 and 5.3, from CNNs trained before on FER2013 and VoxCeleb,
reported on its validation actors; it has no separate test actors. From random weights and tested on
actors that chose nothing, as here, less must be expected. A training step costs 0.17 TFLOP per clip
for 16 frames of 224 x 224, and 0.014 TFLOP for each segment of sound, also those that only pad a
shorter clip: 0.30 TFLOP per clip of CREMA-D (9 segments in 5 s), so 8e16 FLOP for 50 epochs, and
0.32 TFLOP per clip of RAVDESS (10 in 5.5 s).

size=study is for comparisons of many trainings: at most 90 s each on 2 cores.
"""

from ml_collections import ConfigDict

from aver_jax.config import base_config, choice, parse_argument
from aver_jax.frontend import augment, sound
from aver_jax.frontend.presets import SMALL_CORPUS, THESIS
from aver_jax.input import DEFAULT_PROTOCOLS
from aver_jax.models.fusion.fusion import NETWORKS
from aver_jax.models.resnet.branch import CNNS
from aver_jax.models.resnet.sequence import AGGREGATORS

BRANCHES = {"video": ("video",), "audio": ("audio",)}

# Fields of a branch by size. The thesis' are ResNet-18 and LSTM(512).
SIZES = {
    "study": {
        "width": 8,
        "stage_sizes": (1, 1, 1),
        "stem": "conv3",
        "features": 64,
        "scoring_hidden": 64,
    },
    "small": {
        "width": 16,
        "stage_sizes": (1, 1, 1),
        "stem": "conv3",
        "features": 64,
        "scoring_hidden": 128,
    },
    "thesis": {
        "width": 64,
        "stage_sizes": (2, 2, 2, 2),
        "stem": "conv7",
        "features": 512,
        "scoring_hidden": 256,
    },
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the experiment; `arg` as in network=n2,size=thesis,dataset=ravdess,fold=3."""
    arg = parse_argument(
        arg,
        network="n2",
        size="small",
        dataset="synthetic",
        fold=1,
        protocol="",
        aggregator="lstm",
        cnn="2d",
    )
    choice("network", arg.network, (*BRANCHES, *NETWORKS))
    choice("size", arg.size, SIZES)
    choice("dataset", arg.dataset, DEFAULT_PROTOCOLS)
    choice("aggregator", arg.aggregator, AGGREGATORS)
    choice("cnn", arg.cnn, CNNS)

    config = base_config()
    config.data.protocol = arg.protocol or DEFAULT_PROTOCOLS[arg.dataset]
    config.data.fold = arg.fold
    config.data.modalities = BRANCHES.get(arg.network, ("video", "audio"))

    config.model = ConfigDict(SIZES[arg.size])
    config.model.dtype = "float32"
    config.model.aggregator = arg.aggregator
    # Of the face; segments of sound are images.
    config.model.cnn = "2d" if arg.network == "audio" else arg.cnn
    if arg.aggregator == "mean" or arg.cnn == "3d":
        # They leave the ResNet's features as wide as they are.
        config.model.features = config.model.width * 2 ** (len(config.model.stage_sizes) - 1)
    if arg.network in BRANCHES:
        config.model.name, config.model.modality = "resnet_lstm", arg.network
    else:
        config.model.name, config.model.network = "mrpn", arg.network
        config.model.modality_dropout = 0.0
    if arg.network == "late":
        parts = ("video", "video_scoring", "audio", "audio_scoring")
        config.init = ConfigDict(dict.fromkeys(parts, ""))
        config.freeze = parts

    # All amounts, so that any can be set from the command line.
    config.frontend.augment = ConfigDict(augment.OFF)
    config.frontend.sound = ConfigDict(sound.OFF)
    # How loud a file is says more of the recording than of the emotion.
    config.frontend.level = "rms"
    if arg.size == "thesis":
        _thesis(config)
        # About the longest clips: every further half second is another segment.
        config.data.max_seconds = {"crema_d": 5.0, "ravdess": 5.5}.get(arg.dataset, 6.0)
    else:
        _rendered_corpus(config, arg.size)
    return config


def _thesis(config: ConfigDict) -> None:
    """Applies the settings of the thesis (4.2.2, 4.5.2, 5.3.2).

    It states no number of frames or of clips in a batch and no weight decay of its AdamW (here
    torch's default), and clips no gradients.
    """
    config.data.num_frames = 16
    config.data.image_size = 224
    config.model.dtype = "bfloat16"
    config.frontend.normalization = "imagenet"
    config.frontend.augment.update(THESIS)
    # Measured on clips of CREMA-D; the thesis states none, but plain log(1 + magnitude) is tiny.
    config.frontend.spectrogram.mean = 0.05
    config.frontend.spectrogram.deviation = 0.16
    config.batch_size = 32
    config.epochs = 50.0
    config.optimizer.lr = 5e-5
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 0.0
    config.schedule.name = "plateau"  # halved after 10 epochs without a lower validation loss
    config.schedule.warmup_epochs = 0.0


def _rendered_corpus(config: ConfigDict, size: str) -> None:
    """Applies settings measured on the rendered corpus; the sound is a mel spectrogram."""
    study = size == "study"
    config.data.num_frames = 8
    config.data.image_size = 32 if study else 48
    config.data.max_seconds = 1.8 if study else 2.25
    # A still of that corpus tells little: what changes does (docs/synthetic.md).
    config.frontend.normalization = "per_clip_change"
    config.frontend.augment.update(SMALL_CORPUS)
    spectrogram = config.frontend.spectrogram
    spectrogram.hop = 256
    spectrogram.scale = "db"
    spectrogram.bands = 32 if study else 40
    spectrogram.segment = 40 if study else 32  # frames of 16 ms
    spectrogram.overlap = 0.25 if study else 0.5
    spectrogram.mean = -45.0
    spectrogram.deviation = 18.0
    config.batch_size = 16
    config.epochs = 30.0 if study else 48.0
    config.evaluation.every_epochs = 6.0
    config.optimizer.lr = 4e-3 if study else 2e-3
    config.schedule.warmup_epochs = 2.0
