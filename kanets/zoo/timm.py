"""What a repository of timm's says of its weights, in `config.json`.

Which net they are of, how pictures were prepared, the classes, the licence:
`save_for_hf` of timm writes it, most of it under `pretrained_cfg`.
"""

import dataclasses
import json

import numpy as np

from kanets.checks import one_line
from kanets.data.folders import imagenet_names
from kanets.data.pictures import INTERPOLATIONS
from kanets.nets.registry import NETS
from kanets.zoo.entries import ARCHITECTURES

IMAGENET_CLASSES = 1000  # with so many, timm's are ImageNet's, in its order


@dataclasses.dataclass(frozen=True)
class Described:
    """What `config.json` says.

    Attributes:
        architecture: timm's name of the net, or "".
        input_shape: (H, W, C) of the pictures.
        scaling: what a `kanets.layers.PixelScale` is told: `scale`,
            `offset`, `crop` and `interpolation`.
        class_names: labels, ImageNet's in English; or None.
        licence: of the weights, or "".
        text: how pictures were prepared, and the licence, in words.
    """

    architecture: str
    input_shape: tuple
    scaling: dict
    class_names: tuple | None
    licence: str
    text: str


def described(weights):
    """What the `config.json` beside a file of timm's says, or None.

    Args:
        weights: path of the file.

    Raises:
        ValueError: the file says too little, or asks for what is not done.
    """
    file = weights.with_name("config.json")
    if not file.exists():
        return None
    try:
        return _of(json.loads(file.read_text(encoding="utf-8")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "The config.json beside timm's weights must have mean, std and "
            "input_size under pretrained_cfg, and where it has them a crop_pct "
            'in (0, 1], crop_mode "center" and interpolation '
            f"{' or '.join(INTERPOLATIONS)}. Received: "
            f"{str(file)!r} ({type(error).__name__}: {one_line(error)})"
        ) from error


def architecture_of(weights, source):
    """The `Architecture` that timm's weights are of.

    Args:
        weights: path of the file.
        source: what the error calls it.

    Raises:
        ValueError: `config.json` does not tell, or names none of ours.
    """
    names = {
        NETS[a.net].timm_name.format(a.name): a
        for a in ARCHITECTURES
        if NETS[a.net].timm
    }
    found = described(weights)
    theirs = found.architecture if found else ""
    if theirs not in names:
        raise ValueError(
            "Which net timm's weights are of is told by `architecture` of the "
            "config.json beside them, or by the name in "
            "kanets.create_model(name, weights=...); `kanets list --hub` has "
            f"those that fit. Received: {str(source)!r} with "
            + (f"architecture={theirs!r}" if found else "no config.json")
        )
    return names[theirs]


def _of(config):
    prepared = config.get("pretrained_cfg", config)
    channels, height, width = prepared["input_size"]
    mean, std = np.array(prepared["mean"]), np.array(prepared["std"])
    words = [f"mean {mean.tolist()}", f"std {std.tolist()}"]
    words.append(f"{height}x{width}")
    scaling = {
        "scale": _plain(1 / (255 * std)),
        "offset": _plain(-mean / std),
    }
    if "crop_pct" in prepared:
        crop = float(prepared["crop_pct"])
        interpolation = prepared.get("interpolation", "bicubic")
        if not 0 < crop <= 1 or interpolation not in INTERPOLATIONS:
            raise ValueError(f"crop_pct={crop}, {interpolation=}")
        if prepared.get("crop_mode", "center") != "center":
            raise ValueError(f"crop_mode={prepared['crop_mode']!r}")
        scaling |= {"crop": crop, "interpolation": interpolation}
        words += [interpolation, f"the centre {crop:.1%} of the side"]
    licence = prepared.get("license") or ""
    text = f"; pictures: {', '.join(words)}"
    return Described(
        architecture=config.get("architecture", ""),
        input_shape=(height, width, channels),
        scaling=scaling,
        class_names=_labels(config),
        licence=licence,
        text=f"{text}; licence: {licence}" if licence else text,
    )


def _labels(config):
    english = imagenet_names()
    labels = config.get("label_names")
    if isinstance(labels, list):
        return tuple(english.get(label, label) for label in labels)
    if config.get("num_classes") == IMAGENET_CLASSES:
        return tuple(english.values())
    return None


def _plain(values):
    """One float where all channels have the same, otherwise a list."""
    values = values.tolist()
    return values[0] if len(set(values)) == 1 else values
