r"""One modality alone: ResNet and LSTM over frames of the face, or over segments of the sound.

The recipes are those of the same branch in configs/mrpn.py (Chang 2021, 4.4 and 4.5), so that a
run of this can be a branch of a fusion there, and scores compare.

The synthetic corpus, on 2 CPU cores (two to three minutes; at least 50% WAR on unseen actors):

    aver train --config resnet_lstm.py:modality=audio,size=small,dataset=synthetic \
        --config.data.path=DATA --workdir RUN

CREMA-D or RAVDESS at the thesis' sizes, on an accelerator, best from converted weights
(tools/convert_checkpoint.py resnet):

    aver train --config resnet_lstm.py:modality=video,size=thesis,dataset=crema_d,fold=1 \
        --config.data.path=DATA --config.init.video/cnn=CONVERTED --workdir RUN

Expected at size=thesis: on RAVDESS, 12 pairs, the thesis' Table 5.1 has 69.3% for the voice and
73.9% for the face (means), from CNNs trained before on VoxCeleb and FER2013, reported on its
validation actors; it has no separate test actors. A training step costs 10.9 GFLOP for each of the
16 frames of a clip, or 14.3 GFLOP for each segment of its sound (9 on CREMA-D, 10 on RAVDESS).

Aggregators: lstm (the default), bilstm, transformer (the mean of its outputs), mean.
"""

from pathlib import Path

from ml_collections import ConfigDict

from aver_jax.config import choice, load_config, parse_argument


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the experiment; `arg` as in modality=audio,aggregator=bilstm,dataset=crema_d."""
    arg = parse_argument(
        arg,
        modality="video",
        aggregator="lstm",
        size="small",
        dataset="synthetic",
        fold=1,
        protocol="",
        cnn="2d",
    )
    choice("modality", arg.modality, ("video", "audio"))
    if arg.modality == "audio":
        choice("cnn", arg.cnn, ("2d",))
    words = arg.to_dict()
    words["network"] = words.pop("modality")
    argument = ",".join(f"{name}={value}" for name, value in words.items())
    return load_config(f"{Path(__file__).with_name('mrpn.py')}:{argument}")
