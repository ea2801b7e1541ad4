"""Parameters and multiply-adds: those that the papers print, to the last digit."""

import jax
import jax.numpy as jnp
import pytest

from aver_jax.models.counting import multiply_adds, parameter_count
from aver_jax.models.fusion.mrpn import Mrpn
from aver_jax.models.timesformer.timesformer import TimeSformer


def shape(*axes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(axes, dtype)


def variables_of(model):
    return jax.eval_shape(model.init, jax.random.key(0), model.input_shapes(1))


def model_multiply_adds(model, inputs):
    return multiply_adds(model.apply, jax.eval_shape(model.init, jax.random.key(0), inputs), inputs)


def one_clip(frames, segments=1):
    """The inputs whose cost the thesis prints: 224 x 224 frames, one second of sound."""
    return {
        "frames": shape(1, frames, 224, 224, 3),
        "audio": shape(1, segments, 257, 250),
        "audio_segments": shape(1, dtype=jnp.int32),
    }


def norm_scales(model):
    """Number of the learned scales of batch norms.

    The thesis' counter (torchsummaryX) counts every parameter named "weight" outside convolutions
    once, the scales of batch norms among them; a scale is no matrix product to us.
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables_of(model)["params"])
    return sum(leaf.size for path, leaf in leaves if path[-1].key == "scale")


def test_resnet_lstm_for_both_modalities_costs_what_the_thesis_prints():
    # Section 4.4: 26.813704M parameters, 4.200483008G multiply-adds.
    model = Mrpn(8, "n0")
    count = parameter_count(variables_of(model))
    assert count == 26_809_608
    # torch's LSTM has a second bias vector, which is only ever added to the first.
    second_biases = 2 * 4 * 512
    assert count + second_biases == 26_813_704
    assert norm_scales(model) == 9_600
    # One frame and one segment, so one step of each LSTM.
    multiply_adds = model_multiply_adds(model, one_clip(1))
    assert multiply_adds == 4_200_473_408
    assert multiply_adds + norm_scales(model) == 4_200_483_008


def test_3d_resnet_costs_what_the_thesis_prints():
    # Section 4.4: 44.6386M parameters, 56.933271744G multiply-adds. No LSTM reads the sound either.
    model = Mrpn(8, "n0", cnn="3d", aggregator="mean")
    assert parameter_count(variables_of(model)) == 44_638_600
    multiply_adds = model_multiply_adds(model, one_clip(25))
    assert multiply_adds + norm_scales(model) == 56_933_271_744


def test_parts_add_up():
    # torchvision prints 1.814 G for a 224 x 224 image, its classifier of 1000 classes included.
    per_frame = 1_814_073_344 - 512 * 1000
    step = 4 * 512 * (512 + 512)
    costs = [model_multiply_adds(Mrpn(8, "n0"), one_clip(*n)) for n in ((1, 1), (5, 1))]
    assert costs[1] - costs[0] == 4 * (per_frame + step)
    # N1 adds two linear heads, N2 two residual perceptrons as well.
    n0, n1, n2 = (parameter_count(variables_of(Mrpn(8, network))) for network in ("n0", "n1", "n2"))
    assert n1 - n0 == 2 * (512 + 1) * 8
    assert n2 - n1 == 2 * (512 + 1) * 512


@pytest.mark.parametrize(
    ("attention", "parameters", "cost"),
    [
        ("divided_space_time", 121_263_366, 195.8),
        ("joint_space_time", 85_809_414, 179.6),
        ("space_only", 85_803_270, 140.5),
    ],
)
def test_timesformer_costs_what_is_published(attention, parameters, cost):
    model = TimeSformer(6, attention=attention)
    assert parameter_count(variables_of(model)) == parameters
    assert round(model.multiply_adds / 1e9, 1) == cost


@pytest.mark.parametrize("fields", [{}, {"stem": 2}, {"attention": "joint_space_time"},
                                    {"attention": "space_only"}])  # fmt: skip
def test_what_is_computed_costs_little_more_or_less_than_what_is_published(fields):
    """More by copies of the cls token; less by what attention over time does without products."""
    model = TimeSformer(6, image_size=64, patch_size=8, width=24, depth=4, num_heads=3, **fields)
    # One matrix instead of two, and sums instead of products with softmax.
    less = model.depth * 64 * model.num_frames * model.width * (model.width + 2 * model.num_frames)
    less *= model.attention == "divided_space_time"
    computed = model_multiply_adds(model, model.input_shapes(1)) + less
    assert 1 <= computed / model.multiply_adds < 1.03


def test_cost_is_that_of_whatever_loop_computes_it():
    fields = {"image_size": 16, "patch_size": 8, "width": 12, "depth": 4, "num_heads": 3}
    model = TimeSformer(6, **fields)
    cost = model_multiply_adds(model, model.input_shapes(1))
    for other in ({"unroll": 4}, {"remat": "block"}):
        assert model_multiply_adds(TimeSformer(6, **fields, **other), model.input_shapes(1)) == cost


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (lambda a, b: a @ b, [(2, 3), (3, 5)], 30),
        (lambda a, b: jnp.einsum("bik,bkj->bij", a, b), [(7, 2, 3), (7, 3, 5)], 210),
        (lambda a, b: jnp.tanh(a) + b, [(2, 3), (2, 3)], 0),
        (
            lambda x, w: jax.lax.conv_general_dilated(
                x, w, (2,), "SAME", feature_group_count=2, dimension_numbers=("NWC", "WIO", "NWC")
            ),
            [(1, 8, 4), (3, 2, 6)],
            4 * 6 * 3 * 2,
        ),
        (lambda a, b: jax.lax.map(lambda row: row @ b, a), [(4, 3), (3, 5)], 60),
        (lambda a, b: jax.lax.cond(a.sum() > 0, lambda: a @ b, lambda: 2 * a), [(3, 3)] * 2, 27),
        (lambda a, b: jax.jit(jnp.dot)(a, b), [(2, 3), (3, 5)], 30),
    ],
)
def test_products_are_counted_by_their_shapes(function, shapes, expected):
    assert multiply_adds(function, *(shape(*axes) for axes in shapes)) == expected


def test_an_endless_loop_is_refused():
    def endless(a):
        return jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ x, a)

    with pytest.raises(ValueError, match="without a fixed number of rounds"):
        multiply_adds(endless, shape(3, 3))
