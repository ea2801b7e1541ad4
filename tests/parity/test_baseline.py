"""PyTorch implementations against aver_jax: same weights, same batch, same outputs."""

import dataclasses

import numpy as np
import pytest
import torch

from aver_jax.bench.cases import Case
from aver_jax.bench.worker import inputs, tasks
from aver_jax.bench.worker.case_files import CaseFiles
from tools.baseline.batches import HostBatch
from tools.baseline.inference import Inference, frozen
from tools.baseline.models.classifier import Classifier, Mode
from tools.baseline.models.resnet_lstm import Packing
from tools.baseline.models.transformers_timesformer import TransformersClassifier
from tools.baseline.relevance import Hooked, batched
from tools.baseline.train import Training

pytestmark = pytest.mark.parity

CPU = torch.device("cpu")
SIDE, FRAMES = 32, 4
TRANSFORMER = {
    "name": "timesformer", "attention": "divided_space_time", "width": 48, "depth": 2,
    "num_heads": 3, "patch_size": 8, "image_size": SIDE, "num_frames": FRAMES, "mlp_ratio": 2,
    "drop_path": 0.0, "dtype": "float32",
}  # fmt: skip
RESNET = {
    "stage_sizes": [1, 1], "width": 8, "stem": "conv7", "features": 24, "scoring_hidden": 16,
    "aggregator": "lstm", "cnn": "2d", "dtype": "float32",
}  # fmt: skip
VIDEO = {"name": "resnet_lstm", "modality": "video", **RESNET, "stem": "conv3"}
AUDIO = {"name": "resnet_lstm", "modality": "audio", **RESNET, "stage_sizes": [1]}
MODELS = {
    "timesformer": (TRANSFORMER, ("frames",)),
    "video": (VIDEO, ("frames",)),
    "audio": (AUDIO, ("audio",)),
    "mrpn": ({"name": "mrpn", "network": "n2", **RESNET}, ("frames", "audio")),
}
SPECTROGRAM = {"n_fft": 64, "window": 64, "hop": 64, "segment": 40}


@pytest.fixture(scope="module", autouse=True)
def _settings():
    """Small spectrograms, and a decay so large that a loss after it would show a wrong one."""

    def changed(case):
        config = inputs.case_config(case)
        config.optimizer.weight_decay = 1000.0
        config.frontend.spectrogram.update(SPECTROGRAM)
        return config

    def ragged(case):
        batch = inputs.synthetic_batch(case)
        if case.task == "train" and "audio" in batch:
            # One clip has no sound, as a slice of a clip may have none.
            batch["audio_length"][2] = 0
            batch["audio"][2] = 0
        elif "audio" in batch:
            batch["audio_length"][:] = batch["audio"].shape[1]
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "case_config", changed)
        patch.setattr(tasks, "synthetic_batch", ragged)
        yield


def case_and_outputs(folder, task, model, batch_size, modalities=("frames",)):
    """Returns the files of a case that aver_jax has done, as torch reads them, and its outputs."""
    case = Case(task, task, model, batch_size, FRAMES, SIDE, 0.6, modalities)
    prepared = tasks.prepare_case(case)
    tasks.case_files(folder, case, prepared).write()
    return CaseFiles.read(folder), prepared.outputs


def host_batch(found):
    return HostBatch(found.batch, found.settings["frontend"]["spectrogram"], CPU)


def losses_of(found, model):
    trainer = Training(model, model.network, model.state, found.settings, host_batch(found))
    losses = [trainer.call() for _ in range(3)]
    trainer.reset()
    again = [trainer.call() for _ in range(3)]
    assert_close(again, losses, 1e-6)
    return losses


def assert_close(found, expected, relative):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


@pytest.fixture(scope="module", params=MODELS)
def trained(request, tmp_path_factory):
    """A case of training: what torch reads, and the losses of aver_jax's three steps."""
    model, modalities = MODELS[request.param]
    # So many clips that the norms of a branch have statistics that float32 can hold.
    found, result = case_and_outputs(
        tmp_path_factory.mktemp("case"), "train", model, 12, modalities
    )
    return found, result["losses"]


def test_losses_of_three_steps_are_those_of_aver_jax(trained):
    found, expected = trained
    assert_close(losses_of(found, Classifier(found, CPU, Mode())), expected, 2e-5)
    if found.model["name"] == "timesformer":
        for kind in ("sdpa", "products"):
            model = Classifier(found, CPU, Mode(temporal=kind))
            assert_close(losses_of(found, model), expected, 2e-5)
        assert_close(losses_of(found, TransformersClassifier(found, CPU)), expected, 2e-5)


def test_without_its_decay_a_loss_is_another(trained):
    found, expected = trained
    optimizer = found.settings["optimizer"] | {"decayed": []}
    other = dataclasses.replace(found, settings=found.settings | {"optimizer": optimizer})
    losses = np.array(losses_of(other, Classifier(other, CPU, Mode())))
    assert np.abs(losses - expected).max() > 1e-4 * expected.max()


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_aver_jax(name, tmp_path):
    model, modalities = MODELS[name]
    found, result = case_and_outputs(tmp_path, "inference", model, 3, modalities)
    classifiers = [Classifier(found, CPU, Mode())]
    if name == "timesformer":
        classifiers.append(TransformersClassifier(found, CPU))
    for classifier in classifiers:
        for network_of in (lambda network: network, lambda network: frozen(network, half=False)):
            classifier.network = network_of(classifier.network)
            logits = Inference(classifier, host_batch(found)).call()
            assert_close(logits, result["logits"], 1e-5)


def test_relevance_is_that_of_aver_jax(tmp_path):
    found, result = case_and_outputs(tmp_path, "relevance", TRANSFORMER, 3)
    classifier = Classifier(found, CPU, Mode())
    network = classifier.network.eval()
    with torch.no_grad():
        frames = classifier.inputs(host_batch(found).on_device())["frames"]

    hooked = Hooked(network)
    singles = [hooked.explain(clip) for clip in frames.split(1)]
    network.requires_grad_(False)
    target = torch.tensor(found.settings["target"])
    for given in (None, target):
        for probes in (False, True):
            explained = batched(network, frames, given, probes=probes)
            for name in ("maps", "logits"):
                assert_close(getattr(explained, name), result[name], 1e-5)
            assert explained.target.tolist() == result["target"].tolist()
    for name in ("maps", "logits"):
        assert_close(torch.cat([getattr(single, name) for single in singles]), result[name], 1e-5)


def test_packed_steps_are_those_of_a_packed_sequence():
    lengths = np.array([2, 0, 4, 1, 4])
    packing = Packing.of_lengths(lengths, 4, CPU)
    steps = torch.arange(20.0).view(5, 4, 1)
    expected = torch.nn.utils.rnn.pack_sequence(
        [steps[row, :length] for row, length in enumerate(lengths) if length],
        enforce_sorted=False,
    )
    assert steps.view(-1, 1)[packing.index].tolist() == expected.data.tolist()
    assert packing.batch_sizes.tolist() == expected.batch_sizes.tolist()
    assert packing.unsorted.tolist() == expected.unsorted_indices.tolist()
    assert packing.present.tolist() == [0, 2, 3, 4]
    assert not packing.equal


@pytest.mark.slow
# The compiler warns of its own doing: deprecated parts of torch, gradients that it looks for.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["timesformer", "mrpn"])
def test_compiled_losses_are_those_of_aver_jax(name, tmp_path):
    model, modalities = MODELS[name]
    found, result = case_and_outputs(tmp_path, "train", model, 12, modalities)
    losses = losses_of(found, Classifier(found, CPU, Mode(compiled=True)))
    assert_close(losses, result["losses"], 2e-5)
