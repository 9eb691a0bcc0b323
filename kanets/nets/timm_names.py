"""What layers of our nets are called in timm's published files.

A function for each net, of the arguments of its builder, named in its item of
`kanets.nets.registry`; it returns a table for `kanets.zoo.foreign.fill`. timm:
https://github.com/huggingface/pytorch-image-models.
"""

import itertools
import math

import numpy as np

from kanets.nets import efficientnet_lite as lite
from kanets.nets.parts import check_variant
from kanets.nets.vit import VARIANTS

_VIT_BLOCK = {  # by our layer: kind and name there
    "attention_norm": ("norm", "norm1"),
    "attention/query": ("dense", "attn.query"),
    "attention/key": ("dense", "attn.key"),
    "attention/value": ("dense", "attn.value"),
    "attention/output": ("dense", "attn.proj"),
    "mlp_norm": ("norm", "norm2"),
    "mlp_expand": ("dense", "mlp.fc1"),
    "mlp_project": ("dense", "mlp.fc2"),
}


def efficientnet_lite(variant="lite0", **_):
    """Of `tf_efficientnet_lite0` ... `2`; the names, not the strides."""
    check_variant(variant, lite.VARIANTS)
    names = {
        "stem": ("conv", "conv_stem"),
        "stem_norm": ("norm", "bn1"),
        "head": ("conv", "conv_head"),
        "head_norm": ("norm", "bn2"),
        "fc": ("dense", "classifier"),
    }
    # Neighbouring stages differ in their channels, blocks of one do not.
    stages = itertools.groupby(lite.blocks(variant), lambda b: b.channels)
    for stage, (_, blocks) in enumerate(stages):
        for number, block in enumerate(blocks):
            ours = f"block_{block.index}_"
            theirs = f"blocks.{stage}.{number}."
            steps = ["expand", "depthwise", "project"]
            convolutions = ["conv_pw", "conv_dw", "conv_pwl"]
            if block.expansion == 1:
                steps, convolutions = steps[1:], ["conv_dw", "conv_pw"]
            for place, (step, convolution) in enumerate(
                zip(steps, convolutions, strict=True), start=1
            ):
                kind = "depthwise" if step == "depthwise" else "conv"
                names[f"{ours}{step}"] = (kind, f"{theirs}{convolution}")
                names[f"{ours}{step}_norm"] = ("norm", f"{theirs}bn{place}")
    return names


def vit(variant="tiny", depth=None, **_):
    """Of `vit_tiny_patch16_224` and the like, after `vit_tensors`."""
    check_variant(variant, VARIANTS)
    names = {
        "patches": ("conv", "patch_embed.proj"),
        "positions": ("own", "positions"),
        "norm": ("norm", "norm"),
        "predictions": ("dense", "head"),
    }
    for block in range(VARIANTS[variant].depth if depth is None else depth):
        for layer, (kind, theirs) in _VIT_BLOCK.items():
            name = f"blocks.{block}.{theirs}"
            names[f"block_{block}_{layer}"] = (kind, name)
    return names


def vit_tensors(tensors, input_shape, patch_size=16, **_):
    """Queries, keys and values apart, and positions as a grid.

    timm has one product for the three, and a row of positions of which the
    first is that of the class token, ours a part of the token.
    """
    found = {}
    for name, tensor in tensors.items():
        place, _, part = name.rpartition("qkv.")
        if not place:
            found[name] = tensor
            continue
        thirds = np.split(tensor, 3)
        for letter, third in zip(
            ("query", "key", "value"), thirds, strict=True
        ):
            found[f"{place}{letter}.{part}"] = third
    grid = [-(-side // patch_size) for side in input_shape[:2]]
    positions = found.get("pos_embed")
    if positions is None or positions.shape[1] != 1 + math.prod(grid):
        return found  # what is wrong with it is told when it is read
    first, cells = positions[:, :1], positions[:, 1:]
    del found["pos_embed"]
    found["positions/positions"] = cells.reshape(1, *grid, -1)
    if "cls_token" in found:
        found["positions/class_token"] = found.pop("cls_token") + first
    return found
