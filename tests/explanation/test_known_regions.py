"""Boxes of rendered parts, carried into what a model sees."""

import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.explanation.known_regions import frames_in_span, region_patches, seen_boxes
from aver_jax.input import ClipShape, open_dataset
from data_prep.synthetic.truth import read_truth

SHAPE = ClipShape(num_frames=4, image_size=48)


def test_parts_lie_in_the_crop_as_in_a_face(synthetic_dataset):
    dataset = open_dataset(synthetic_dataset)
    truth, rows = read_truth(synthetic_dataset), range(len(dataset))
    middle = {}
    for part in ("eyes", "nose", "mouth"):
        boxes = seen_boxes(dataset, rows, SHAPE, truth, part)
        assert boxes.shape == (len(dataset), 4, 4)
        middle[part] = (boxes[..., :2] + boxes[..., 2:]) / 2
        assert (np.abs(middle[part][..., 0] - 0.5) < 0.15).all()
        assert region_patches(boxes, (6, 6)).any(axis=(2, 3)).all()
    assert (middle["eyes"][..., 1] < middle["nose"][..., 1]).all()
    assert (middle["nose"][..., 1] < middle["mouth"][..., 1]).all()


def test_half_of_the_frames_lie_in_half_of_the_clip(synthetic_dataset):
    dataset = open_dataset(synthetic_dataset)
    late = frames_in_span(dataset, range(3), SHAPE, (0.5, 1.0))
    np.testing.assert_array_equal(late, [[False, False, True, True]] * 3)
    np.testing.assert_array_equal(frames_in_span(dataset, range(3), SHAPE, (0.0, 0.5)), ~late)


def test_a_part_without_boxes_is_refused(synthetic_dataset):
    truth = read_truth(synthetic_dataset)
    with pytest.raises(UserError, match="region 'ears'; the truth has face, eyes, nose, mouth"):
        seen_boxes(open_dataset(synthetic_dataset), [0], SHAPE, truth, "ears")
