"""Aggregators against torch's LSTM with packed sequences and its Transformer encoder."""

import jax
import numpy as np
import pytest
import torch

from aver_jax.models.resnet.sequence import Aggregator, sinusoids

pytestmark = pytest.mark.parity

BATCH, STEPS, WIDTH, HIDDEN = 5, 7, 24, 16
LENGTHS = np.array([7, 4, 1, 6, 2], np.int32)


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12)


def computed(model, params, x, cotangent):
    """Return the result and the gradients of parameters and input, by our code."""

    @jax.jit
    def run(params, x):
        out, pullback = jax.vjp(lambda p, x: model.apply({"params": p}, x, LENGTHS), params, x)
        return out, pullback(cotangent)

    with jax.default_matmul_precision("highest"):
        out, (grads, grad_x) = run(params, x)
    return out, grads, grad_x


def lstm_params(module, suffix, gradient=False):
    """Return torch's parameters of one direction, or their gradients, in our layout."""

    def of(name):
        parameter = getattr(module, f"{name}_l0{suffix}")
        return (parameter.grad if gradient else parameter).detach().numpy()

    # Either of torch's biases has the gradient of their sum.
    bias = of("bias_ih") if gradient else of("bias_ih") + of("bias_hh")
    return {
        "input_kernel": of("weight_ih").T,
        "recurrent_kernel": of("weight_hh").T,
        "bias": bias,
    }


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, STEPS, WIDTH)).astype(np.float32)
    return x, rng


@pytest.mark.parametrize("kind", ["lstm", "bilstm"])
def test_lstm_is_torchs_of_packed_sequences(kind, data):
    x, rng = data
    both = kind == "bilstm"
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(WIDTH, HIDDEN, batch_first=True, bidirectional=both)
    features = 2 * HIDDEN if both else HIDDEN
    cotangent = rng.normal(size=(BATCH, features)).astype(np.float32)

    x_torch = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x_torch, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    _, (last, _) = theirs(packed)
    expected = torch.cat(list(last), dim=-1)
    expected.backward(torch.tensor(cotangent))

    def tree(gradient=False):
        found = {"forward": lstm_params(theirs, "", gradient)}
        if both:
            found["backward"] = lstm_params(theirs, "_reverse", gradient)
        return found

    out, grads, grad_x = computed(Aggregator(kind, features), tree(), x, cotangent)
    assert relative_error(out, expected.detach()) < 1e-5
    assert relative_error(grad_x, x_torch.grad) < 1e-5
    errors = jax.tree.map(relative_error, grads, tree(gradient=True))
    assert max(jax.tree.leaves(errors)) < 1e-5


def test_transformer_is_torchs_encoder_and_a_masked_mean(data):
    x, rng = data
    width = 128
    x = rng.normal(size=(BATCH, STEPS, width)).astype(np.float32)
    cotangent = rng.normal(size=(BATCH, width)).astype(np.float32)
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        width,
        nhead=2,
        dim_feedforward=4 * width,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )
    theirs = torch.nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
    with torch.no_grad():
        for parameter in theirs.parameters():  # the two layers begin as copies
            parameter.add_(0.05 * torch.randn_like(parameter))

    x_torch = torch.tensor(x, requires_grad=True)
    padding = torch.tensor(np.arange(STEPS)[None] >= LENGTHS[:, None])
    outputs = theirs(x_torch + torch.tensor(sinusoids(STEPS, width)), src_key_padding_mask=padding)
    outputs = outputs.masked_fill(padding[..., None], 0)
    expected = outputs.sum(1) / torch.tensor(LENGTHS)[:, None]
    expected.backward(torch.tensor(cotangent))

    def tree(gradient=False):
        def of(parameter):
            return (parameter.grad if gradient else parameter).detach().numpy()

        def linear(weight, bias):
            return {"kernel": of(weight).T, "bias": of(bias)}

        def norm(module):
            return {"scale": of(module.weight), "bias": of(module.bias)}

        def of_layer(layer):
            attn = layer.self_attn
            return {
                "norm1": norm(layer.norm1),
                "norm2": norm(layer.norm2),
                "attn": {
                    "qkv": linear(attn.in_proj_weight, attn.in_proj_bias),
                    "proj": linear(attn.out_proj.weight, attn.out_proj.bias),
                },
                "mlp": {
                    "fc1": linear(layer.linear1.weight, layer.linear1.bias),
                    "fc2": linear(layer.linear2.weight, layer.linear2.bias),
                },
            }

        return {f"layer{i}": of_layer(layer) for i, layer in enumerate(theirs.layers)}

    out, grads, grad_x = computed(Aggregator("transformer", width), tree(), x, cotangent)
    assert relative_error(out, expected.detach()) < 1e-5
    assert relative_error(grad_x, x_torch.grad) < 1e-5
    errors = jax.tree.map(relative_error, grads, tree(gradient=True))
    assert max(jax.tree.leaves(errors)) < 1e-5, errors
