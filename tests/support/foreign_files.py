"""State dicts in the published layouts, spelled out from the tables of names and shapes, with noise for numbers."""

from __future__ import annotations

import torch

DEPTHS, HEADS = (2, 1, 3, 2), (1, 2, 3, 4)


def monai(
    *, width=12, window=4, channels=1, mlp=("linear1", "linear2"), prefix="swinViT.", bias=True, patch_norm=False
):
    """MONAI's SwinTransformer, as SwinUNETR holds it."""
    shapes = stages(width, window, lambda stage: f"layers{stage + 1}.0", mlp=mlp, bias=bias)
    shapes |= embedding(width, channels, norm=patch_norm)
    return filled(shapes, prefix=prefix)


def model_swinvit(**options):
    """The research repository's pretrained file: fc1 and fc2, `module.` before each name, pretraining heads beside."""
    state = monai(mlp=("fc1", "fc2"), prefix="module.", **options)
    heads = {"rotation_head.weight": (4, 192), "rotation_head.bias": (4,), "contrastive_head.weight": (512, 192)}
    return {"epoch": 100, "state_dict": state | filled(heads | {"conv.weight": (192, 1, 1, 1, 1)}, prefix="module.")}


def smit(*, width=12, window=4, channels=1, bias=False, norms=True, prefix="module.backbone.transformer."):
    """SMIT's transformer."""
    shapes = stages(width, window, lambda stage: f"layers.{stage}", mlp=("fc1", "fc2"), bias=bias)
    shapes |= embedding(width, channels, norm=True) | {"mask_token": (1, 1, width)}
    if norms:
        for stage in range(4):
            shapes |= {f"norm{stage}.{part}": (width * 2**stage,) for part in ("weight", "bias")}
    return filled(shapes, prefix=prefix)


def disrupted(**options):
    """DAE's file: one more level in each stage, and an encoder's and decoder's own parts beside."""
    state = {}
    for name, tensor in monai(prefix="encoder.", **options).items():
        first, _, rest = name.removeprefix("encoder.").partition(".0.")
        state[f"encoder.{first}.0.0.{rest}" if first.startswith("layers") else name] = tensor
    beside = {"encoder.mask_token": (1, 1, 12), "encoder.norm.weight": (192,), "encoder.norm.bias": (192,)}
    return {"model": state | filled(beside | {"decoder1.0.weight": (3, 3), "out.conv.conv.bias": (1,)}, prefix="")}


def embedding(width, channels, *, norm):
    shapes = {"patch_embed.proj.weight": (width, channels, 2, 2, 2), "patch_embed.proj.bias": (width,)}
    if norm:
        shapes |= {"patch_embed.norm.weight": (width,), "patch_embed.norm.bias": (width,)}
    return shapes


def stages(width, window, name_of, *, mlp, bias):
    shapes = {}
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        c, name = width * 2**stage, name_of(stage)
        for block in range(depth):
            inside = {
                "norm1.weight": (c,),
                "norm1.bias": (c,),
                "attn.relative_position_bias_table": ((2 * window - 1) ** 3, heads),
                "attn.qkv.weight": (3 * c, c),
                "attn.proj.weight": (c, c),
                "attn.proj.bias": (c,),
                "norm2.weight": (c,),
                "norm2.bias": (c,),
                f"mlp.{mlp[0]}.weight": (4 * c, c),
                f"mlp.{mlp[0]}.bias": (4 * c,),
                f"mlp.{mlp[1]}.weight": (c, 4 * c),
                f"mlp.{mlp[1]}.bias": (c,),
            }
            if bias:
                inside["attn.qkv.bias"] = (3 * c,)
            shapes |= {f"{name}.blocks.{block}.{part}": shape for part, shape in inside.items()}
        shapes |= {f"{name}.downsample.norm.{part}": (8 * c,) for part in ("weight", "bias")}
        shapes[f"{name}.downsample.reduction.weight"] = (2 * c, 8 * c)
    return shapes


def filled(shapes, *, prefix):
    """Noise; norms' weights around 1, as they are in a trained network."""
    generator = torch.Generator().manual_seed(0)

    def numbers(name, shape):
        spread = 0.2 * torch.randn(shape, generator=generator)
        return spread + 1 if "norm" in name and name.endswith("weight") else spread

    return {prefix + name: numbers(name, shape) for name, shape in shapes.items()}
