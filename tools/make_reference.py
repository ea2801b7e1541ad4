"""Writes what transformers' TimeSformer computes, for tests that run without torch.

Run by hand in the environment of `make parity`, after a change of what is stored:
`python tools/make_reference.py --out tests/reference`. The files hold no trained weights: a tiny
model of every attention type with noise on every parameter, rounded to float16 to keep them small.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

ATTENTION_TYPES = ("divided_space_time", "joint_space_time", "space_only")


def noisy_model(
    attention: str,
    *,
    width: int,
    heads: int,
    hidden: int,
    depth: int = 2,
    image_size: int = 16,
    patch_size: int = 8,
    num_frames: int = 3,
    num_classes: int = 6,
) -> TimesformerForVideoClassification:
    """Returns a model with noise added to every parameter, rounded to float16, in float32.

    Time embeddings start at zero, so that without noise the order of frames cannot be seen.
    """
    torch.manual_seed(ATTENTION_TYPES.index(attention))
    config = TimesformerConfig(
        image_size=image_size,
        patch_size=patch_size,
        num_frames=num_frames,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=hidden,
        attention_type=attention,
        num_labels=num_classes,
        attn_implementation="eager",
    )
    model = TimesformerForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
            parameter.copy_(parameter.half().float())
    return model


def outputs(
    model: TimesformerForVideoClassification, frames: np.ndarray, cotangent: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns everything a model computes for frames float32 [B, T, H, W, 3].

    Keys: "logits", "block" and the attentions (stacked over layers), "gradient/NAME" of
    sum(logits * cotangent) for every parameter, and "gradient/frames".

    Space-only logits are the head of the normed mean of the frames' cls tokens, since transformers
    classifies every frame on its own.
    """
    taps: dict[str, list] = {}

    def keep(name):
        def hook(module, inputs, output):
            taps.setdefault(name, []).append(output[0] if isinstance(output, tuple) else output)

        return hook

    space = "attention_joint"
    if model.config.attention_type != "joint_space_time":
        space = "attention_space"
    for layer in model.timesformer.encoder.layer:
        layer.register_forward_hook(keep("block"))
        # What attention dropout sees is the softmax.
        layer.attention.attention.attn_drop.register_forward_hook(keep(space))
        if model.config.attention_type == "divided_space_time":
            layer.temporal_attention.attention.attn_drop.register_forward_hook(
                keep("attention_time")
            )

    pixels = torch.tensor(frames).permute(0, 1, 4, 2, 3).contiguous().requires_grad_()
    if model.config.attention_type == "space_only":
        backbone = model.timesformer
        tokens = backbone.encoder(backbone.embeddings(pixels))[0]
        tokens = tokens.reshape(*frames.shape[:2], *tokens.shape[1:]).mean(1)
        logits = model.classifier(backbone.layernorm(tokens)[:, 0])
    else:
        logits = model(pixels).logits
    (logits * torch.tensor(cotangent)).sum().backward()

    found = {name: torch.stack(values).detach().numpy() for name, values in taps.items()}
    found["logits"] = logits.detach().numpy()
    for name, parameter in model.named_parameters():
        found[f"gradient/{name}"] = parameter.grad.numpy()
    found["gradient/frames"] = pixels.grad.permute(0, 1, 3, 4, 2).numpy()
    return found


def main() -> None:
    """Writes one npz file for every attention type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the .npz files")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(2, 3, 16, 16, 3)).astype(np.float16).astype(np.float32)
    cotangent = rng.normal(size=(2, 6)).astype(np.float32)
    for attention in ATTENTION_TYPES:
        model = noisy_model(attention, width=18, heads=3, hidden=24)
        content = outputs(model, frames, cotangent)
        del content["gradient/frames"]  # as large as all the weights
        content |= {"frames": frames.astype(np.float16), "cotangent": cotangent}
        for name, parameter in model.named_parameters():
            content[f"weight/{name}"] = parameter.detach().numpy().astype(np.float16)
        path = args.out / f"timesformer_{attention}.npz"
        np.savez_compressed(path, **content)
        print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
