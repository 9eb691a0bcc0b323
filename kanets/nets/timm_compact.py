"""What layers of the compact nets are called in timm's published files.

As `kanets.nets.timm_names`, which has the others. Another `attention` than a
net's own is in the published one's place, and has no tensors there.
"""

from kanets.nets import efficientvit as vit
from kanets.nets import mobilenet_v4 as v4
from kanets.nets import shvit as single
from kanets.nets.parts import check_variant

# The parts of an inverted bottleneck, by our layer.
_INVERTED = {
    "start": ("depthwise", "dw_start"),
    "expand": ("conv", "pw_exp"),
    "depthwise": ("depthwise", "dw_mid"),
    "project": ("conv", "pw_proj"),
}


def mobilenet_v4(variant="conv_small", attention=None, **_):
    """Of `mobilenetv4_conv_small` and the like."""
    check_variant(variant, v4.VARIANTS)
    sizes = v4.VARIANTS[variant]
    names = {
        "stem": ("conv", "conv_stem"),
        "stem_norm": ("norm", "bn1"),
        "head": ("conv", "conv_head"),
        "head_norm": ("norm", "norm_head"),
        "predictions": ("dense", "classifier"),
    }
    index = 0
    for stage, blocks in enumerate(sizes.stages):
        for number, block in enumerate(blocks):
            ours = f"block_{index}"
            theirs = f"blocks.{stage}.{number}."
            index += 1
            if block.kind == v4.CONVOLUTION:
                names[ours] = ("conv", f"{theirs}conv")
                names[f"{ours}_norm"] = ("norm", f"{theirs}bn1")
            elif block.kind == v4.FUSED:
                names[f"{ours}_expand"] = ("conv", f"{theirs}conv_exp")
                names[f"{ours}_expand_norm"] = ("norm", f"{theirs}bn1")
                names[f"{ours}_project"] = ("conv", f"{theirs}conv_pwl")
                names[f"{ours}_project_norm"] = ("norm", f"{theirs}bn2")
            elif block.kind == v4.ATTENTION:
                names[f"{ours}_norm"] = ("norm", f"{theirs}norm")
                if attention is None:
                    own = sizes.attention[stage]
                    names |= _multi_query(ours, theirs, "key_stride" in own)
                else:
                    names |= _replaced(ours, f"{theirs}attn")
            else:
                names |= _inverted(block, ours, theirs)
            if sizes.attention and block.kind in ("", v4.ATTENTION):
                names[f"{ours}_scale"] = ("scale", f"{theirs}layer_scale")
    return names


def _replaced(ours, theirs):
    return {f"{ours}_attention": ("replaced", theirs)}


def _inverted(block, ours, theirs):
    names = {}
    absent = {"start": block.start is None, "depthwise": block.kernel is None}
    for part, (kind, name) in _INVERTED.items():
        if not absent.get(part, False):
            names[f"{ours}_{part}"] = (kind, f"{theirs}{name}.conv")
            names[f"{ours}_{part}_norm"] = ("norm", f"{theirs}{name}.bn")
    return names


def _multi_query(ours, theirs, strided):
    names = {}
    for part in ("query", "key", "value", "output"):
        inside = f"{ours}_attention/{part}"
        names[inside] = ("conv", f"{theirs}attn.{part}.proj")
        if strided and part in ("key", "value"):
            names[f"{inside}_depthwise"] = (
                "depthwise",
                f"{theirs}attn.{part}.down_conv",
            )
            names[f"{inside}_norm"] = ("norm", f"{theirs}attn.{part}.norm")
    return names


def efficientvit(variant="b0", attention=None, **_):
    """Of `efficientvit_b0` and the like."""
    check_variant(variant, vit.VARIANTS)
    sizes = vit.VARIANTS[variant]
    names = {
        "features": ("dense", "head.classifier.0"),
        "features_norm": ("norm", "head.classifier.1"),
        "predictions": ("dense", "head.classifier.4"),
    }
    names |= _conv_norm("stem", "stem.in_conv")
    names |= _conv_norm("head", "head.in_conv")
    for number in range(sizes.depths[0]):
        names |= _separable(
            f"stem_block_{number}", f"stem.res{number}.main", widens=False
        )
    for stage, depth in enumerate(sizes.depths[1:]):
        attends = stage >= vit.FIRST_ATTENDING
        for number in range(depth + attends):
            ours = f"stage_{stage}_block_{number}"
            theirs = f"stages.{stage}.blocks.{number}."
            if not attends or number == 0:
                names |= _separable(ours, f"{theirs}main", not attends)
                continue
            names |= _separable(ours, f"{theirs}local_module.main", False)
            if attention is None:
                names |= _linear(
                    f"{ours}_attention", f"{theirs}context_module.main"
                )
            else:
                names |= _replaced(ours, f"{theirs}context_module")
    return names


def shvit(variant="s1", attention=None, **_):
    """Of `shvit_s1` and the like."""
    check_variant(variant, single.VARIANTS)
    sizes = single.VARIANTS[variant]
    names = {
        "head_norm": ("norm", "head.bn"),
        "predictions": ("dense", "head.l"),
    }
    for number in range(4):
        names |= _fused(f"stem_{number}", f"patch_embed.{2 * number}")
    for stage, depth in enumerate(sizes.depths):
        if stage > 0:
            ours, theirs = f"stage_{stage}", f"stages.{stage}.downsample"
            names |= _mixing(f"{ours}_before", f"{theirs}.0", f"{theirs}.1")
            names |= _merging(f"{ours}_merge", f"{theirs}.2")
            names |= _mixing(f"{ours}_after", f"{theirs}.3", f"{theirs}.4")
        for number in range(depth):
            ours = f"stage_{stage}_block_{number}"
            theirs = f"stages.{stage}.blocks.{number}."
            names |= _mixing(ours, f"{theirs}conv", f"{theirs}ffn")
            if sizes.attending[stage] is None:
                continue
            if attention is not None:
                names |= _replaced(ours, f"{theirs}mixer.m")
            else:
                inside, place = f"{ours}_attention/", f"{theirs}mixer.m."
                names[f"{inside}norm"] = ("norm", f"{place}pre_norm")
                names |= _fused(f"{inside}maps", f"{place}qkv")
                names |= _fused(f"{inside}output", f"{place}proj.1")
    return names


def _conv_norm(ours, theirs, kind="conv", norm=True):
    """EfficientViT's convolution and norm."""
    names = {ours: (kind, f"{theirs}.conv")}
    if norm:
        names[f"{ours}_norm"] = ("norm", f"{theirs}.norm")
    return names


def _separable(ours, theirs, norm=True, widens=True):
    names = {}
    if widens:
        place = f"{theirs}.inverted_conv"
        names |= _conv_norm(f"{ours}_expand", place, norm=norm)
    place = f"{theirs}.depth_conv"
    names |= _conv_norm(f"{ours}_depthwise", place, "depthwise", norm)
    return names | _conv_norm(f"{ours}_project", f"{theirs}.point_conv")


def _linear(ours, theirs):
    return {
        f"{ours}/maps": ("conv", f"{theirs}.qkv.conv"),
        f"{ours}/depthwise_0": ("depthwise", f"{theirs}.aggreg.0.0"),
        f"{ours}/groups_0": ("conv", f"{theirs}.aggreg.0.1"),
        **_conv_norm(f"{ours}/output", f"{theirs}.proj"),
    }


def _fused(ours, theirs, kind="conv"):
    """SHViT's convolution and norm, which its authors fuse."""
    return {
        ours: (kind, f"{theirs}.c"),
        f"{ours}_norm": ("norm", f"{theirs}.bn"),
    }


def _mixing(ours, convolution, feed_forward):
    return {
        **_fused(f"{ours}_depthwise", f"{convolution}.m", "depthwise"),
        **_fused(f"{ours}_expand", f"{feed_forward}.m.pw1"),
        **_fused(f"{ours}_project", f"{feed_forward}.m.pw2"),
    }


def _merging(ours, theirs):
    return {
        **_fused(f"{ours}_expand", f"{theirs}.conv1"),
        **_fused(f"{ours}_depthwise", f"{theirs}.conv2", "depthwise"),
        f"{ours}_squeeze": ("conv", f"{theirs}.se.fc1"),
        f"{ours}_excite": ("conv", f"{theirs}.se.fc2"),
        **_fused(f"{ours}_project", f"{theirs}.conv3"),
    }
