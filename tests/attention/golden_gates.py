"""Gates with the weights of a golden file; see `references`.

Each function takes a case's arguments and weights, by their names, and returns
a layer and where its weights stand in the file.
"""

from kanets.attention import (
    ConvolutionalBlockAttention,
    CoordinateAttention,
    EfficientChannelAttention,
    EfficientLocalAttention,
    GlobalContextAttention,
    SqueezeExcitation,
)


def squeeze_excitation(given):
    layer = SqueezeExcitation(
        given["fc1.weight"].shape[0],
        str(given.get("gate_layer", "sigmoid")),
        name="layer",
    )
    return layer, {
        "layer/reduce": ("conv", "fc1"),
        "layer/expand": ("conv", "fc2"),
    }


def efficient_channel(given):
    size = given["conv.weight"].shape[-1]
    layer = EfficientChannelAttention(size, name="layer")
    return layer, {"layer/along": ("conv1d", "conv")}


def cbam(given):
    layer = ConvolutionalBlockAttention(
        given["channel.fc1.weight"].shape[0],
        given["spatial.conv.conv.weight"].shape[-1],
        name="layer",
    )
    return layer, {
        "layer/reduce": ("conv", "channel.fc1"),
        "layer/expand": ("conv", "channel.fc2"),
        "layer/around": ("conv", "spatial.conv.conv"),
        "layer/norm": ("norm", "spatial.conv.bn"),
    }


def global_context(given):
    [fuse] = [f for f in ("add", "scale") if f"mlp_{f}.fc1.weight" in given]
    width = given[f"mlp_{fuse}.fc1.weight"].shape[0]
    layer = GlobalContextAttention(fuse, width, name="layer")
    return layer, {
        "layer/logits": ("conv", "conv_attn"),
        "layer/reduce": ("conv", f"mlp_{fuse}.fc1"),
        "layer/norm": ("norm", f"mlp_{fuse}.norm"),
        "layer/expand": ("conv", f"mlp_{fuse}.fc2"),
    }


def coordinate(given):
    layer = CoordinateAttention(given["conv1.weight"].shape[0], name="layer")
    return layer, {
        "layer/reduce": ("conv", "conv1"),
        "layer/norm": ("norm", "bn1"),
        "layer/rows": ("conv", "conv_h"),
        "layer/columns": ("conv", "conv_w"),
    }


def efficient_local(given):
    size = given["conv_h.weight"].shape[2]
    layer = EfficientLocalAttention(size, name="layer")
    return layer, {
        "layer/rows": ("depthwise", "conv_h"),
        "layer/rows_norm": ("norm", "norm_h"),
        "layer/columns": ("depthwise", "conv_w"),
        "layer/columns_norm": ("norm", "norm_w"),
    }


MECHANISMS = {
    "se": squeeze_excitation,
    "eca": efficient_channel,
    "cbam": cbam,
    "gc": global_context,
    "coordinate": coordinate,
    "efficient_local": efficient_local,
}
