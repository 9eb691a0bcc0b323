"""What layers of our nets are called in timm's published files.

A function for each net, of the arguments of its builder, named in its item of
`kanets.nets.registry`; it returns a table for `kanets.zoo.foreign.fill`. timm:
https://github.com/huggingface/pytorch-image-models.
"""

import itertools

from kanets.nets import efficientnet_lite as lite


def efficientnet_lite(variant="lite0", **_):
    """Of `tf_efficientnet_lite0` ... `2`; the names, not the strides."""
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
