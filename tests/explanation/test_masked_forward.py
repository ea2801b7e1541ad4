"""Logits under masks are those of clips masked one by one on the host."""

import numpy as np

from aver_jax.explanation.clip_maps import clip_batches
from aver_jax.explanation.masked_forward import MaskedForward
from aver_jax.explanation.masking import occlude
from aver_jax.frontend import evaluation_inputs


def test_every_clip_and_mask_has_the_logits_of_the_clip_masked_alone(small_run, dataset, test_rows):
    rows = test_rows[:6]
    batches = clip_batches(small_run, dataset, rows, 4)
    masks = np.random.default_rng(0).random((6, 3, 4, 4, 4)) < 0.4
    masks[:, 0] = False
    counted = []
    logits = MaskedForward(small_run, "black")(batches, masks, counted.append)
    assert logits.shape == (6, 3, 6)
    assert sum(counted) == 18
    frames = np.concatenate([b["frames"][b["mask"]] for b in batches])
    for k in range(3):
        changed = occlude(frames, masks[:, k], "black")
        inputs = evaluation_inputs(small_run.config, {"frames": changed})
        alone, _ = small_run.model.apply(small_run.variables, inputs, train=False)
        np.testing.assert_allclose(logits[:, k], alone, rtol=1e-4, atol=1e-5)
    assert abs(logits[:, 1] - logits[:, 0]).max() > 1e-3
