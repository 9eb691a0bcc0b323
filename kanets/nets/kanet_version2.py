"""The body of `KANet(version=2)`: today's blocks, and attention behind a few.

Found by experiment (`benchmarks/version2.py`). Of the large maps there is one
whole convolution in place of many depthwise ones; then come universal inverted
bottlenecks (Qin et al., "MobileNetV4", ECCV 2024); what attends is one residual
branch a stage, closed at the start, in place of a share of each expansion.
"""

from kanets.layers.attention_branch import residual_attention
from kanets.layers.normalized_convolution import conv_norm
from kanets.layers.universal_bottleneck import universal_inverted_bottleneck
from kanets.nets.parts import check_no_layer, level, width

STEM_CHANNELS, FUSED_CHANNELS, HEAD_CHANNELS = 32, (96, 48), 1280
# Channels, and the expansion of each block, of which the first strides.
STAGES = ((112, (4, 3, 3)), (224, (4, 4)), (224, (4, 4)))


def make_body(x, alpha, strides, attention):
    """Stem and stages: from scaled pixels to maps (B, h, w, 224 * alpha)."""
    check_no_layer(attention)
    x = conv_norm(
        x, width(STEM_CHANNELS, alpha), 3, strides[0], "relu", name="stem"
    )
    x = level(x, 1)
    inside, outside = (width(channels, alpha) for channels in FUSED_CHANNELS)
    x = conv_norm(x, inside, 3, strides[1], "relu", name="fused_expand")
    x = conv_norm(x, outside, name="fused_project")
    x = level(x, 2)
    for number, (channels, expansions) in enumerate(STAGES, start=3):
        for block, expansion in enumerate(expansions, start=1):
            x = universal_inverted_bottleneck(
                x,
                width(channels, alpha),
                expansion,
                middle_kernel=3,
                strides=strides[number - 1] if block == 1 else 1,
                name=f"stage{number}_block{block}",
            )
        if attention is not None:
            x = residual_attention(
                x, attention, name=f"stage{number}_attention"
            )
        x = level(x, number)
    return x


def head(x, alpha):
    """The last map: (B, h, w, 1280 * alpha)."""
    return conv_norm(
        x, width(HEAD_CHANNELS, alpha), activation="relu", name="head"
    )
