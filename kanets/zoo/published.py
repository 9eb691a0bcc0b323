"""Weights on the Hugging Face Hub that our nets read, by net: a table.

Top-1 accuracy on ImageNet's validation pictures is timm's own figure, at the
size that the repository's `config.json` names: results/results-imagenet.csv of
https://github.com/huggingface/pytorch-image-models at aa4b5850, which has the
parameters, too. Licences are those of the repositories. What has other classes
than ImageNet's 1,000 is not listed.
"""

import dataclasses
import fnmatch

from kanets.nets.registry import NETS
from kanets.zoo.entries import ARCHITECTURES, Table, known_task

# By architecture: millions of parameters, and by the name after the dot the
# side of the pictures and top-1 in per cent.
_PUBLISHED = {
    "efficientnet_lite0": (4.65, {"in1k": (224, 74.846)}),
    "efficientnet_lite1": (5.42, {"in1k": (240, 76.674)}),
    "efficientnet_lite2": (6.09, {"in1k": (260, 77.470)}),
    "efficientvit_b0": (3.41, {"r224_in1k": (224, 71.408)}),
    "efficientvit_b1": (
        9.10,
        {
            "r224_in1k": (224, 79.254),
            "r256_in1k": (256, 79.734),
            "r288_in1k": (288, 80.322),
        },
    ),
    "efficientvit_b2": (
        24.33,
        {
            "r224_in1k": (224, 82.162),
            "r256_in1k": (256, 82.712),
            "r288_in1k": (288, 83.078),
        },
    ),
    "efficientvit_b3": (
        48.65,
        {
            "r224_in1k": (224, 83.444),
            "r256_in1k": (256, 83.782),
            "r288_in1k": (288, 84.162),
        },
    ),
    "mobilenetv4_conv_small": (
        3.77,
        {
            "e1200_r224_in1k": (224, 73.450),
            "e2400_r224_in1k": (224, 73.756),
            "e3600_r256_in1k": (256, 74.534),
        },
    ),
    "mobilenetv4_conv_medium": (
        9.72,
        {
            "e500_r224_in1k": (224, 79.092),
            "e500_r256_in1k": (256, 79.916),
            "e250_r384_in12k_ft_in1k": (384, 82.776),
        },
    ),
    "mobilenetv4_conv_large": (
        32.59,
        {"e500_r256_in1k": (256, 81.864), "e600_r384_in1k": (384, 82.974)},
    ),
    "mobilenetv4_hybrid_medium": (
        11.07,
        {
            "e500_r224_in1k": (224, 80.432),
            "ix_e550_r256_in1k": (256, 81.478),
            "e200_r256_in12k_ft_in1k": (256, 82.360),
            "ix_e550_r384_in1k": (384, 82.952),
        },
    ),
    "mobilenetv4_hybrid_large": (
        37.76,
        {"e600_r384_in1k": (384, 83.826), "ix_e600_r384_in1k": (384, 83.996)},
    ),
    "shvit_s1": (6.33, {"in1k": (224, 72.780)}),
    "shvit_s2": (11.48, {"in1k": (224, 75.184)}),
    "shvit_s3": (14.25, {"in1k": (224, 77.356)}),
    "shvit_s4": (16.59, {"in1k": (256, 79.362)}),
    "vit_tiny": (5.72, {"augreg_in21k_ft_in1k": (224, 75.452)}),
    "vit_small": (
        22.05,
        {
            "augreg_in1k": (224, 78.842),
            "augreg_in21k_ft_in1k": (224, 81.402),
        },
    ),
}
_LICENCES = {"SHViT": "mit"}  # of a net; of all others:
_LICENCE = "apache-2.0"


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Weights on the Hub that a net of ours reads.

    Attributes:
        weights: "hf://timm/<name>", which `kanets.create_model` takes.
        net: name of the architecture.
        side: of the square pictures they are for.
        top1: accuracy on ImageNet as published, in per cent.
        parameters: in millions, as published.
        licence: of the weights.
    """

    weights: str
    net: str
    side: int
    top1: float
    parameters: float
    licence: str


def list_hub(pattern="*", task=None):
    """Published weights that our nets read; no network is asked.

    Args:
        pattern: a shell pattern of the names of nets, or of the weights.
        task: a name of `kanets.tasks.TASKS`; None is all of them.

    Returns:
        A list of `PublishedWeights`, which prints as a table.

    Raises:
        ValueError: an unknown task.
    """
    if task is not None:
        known_task(task)
    found = []
    for architecture in ARCHITECTURES:
        net = NETS[architecture.net]
        if task not in (None, net.task):
            continue
        name = architecture.name
        parameters, tags = _PUBLISHED.get(name, (None, {}))
        for tag, (side, top1) in tags.items():
            weights = f"hf://timm/{net.timm_name.format(name)}.{tag}"
            licence = _LICENCES.get(net.name, _LICENCE)
            found.append(
                PublishedWeights(weights, name, side, top1, parameters, licence)
            )
    return HubListing(
        weights
        for weights in found
        if fnmatch.fnmatch(weights.net, pattern)
        or fnmatch.fnmatch(weights.weights, pattern)
    )


class HubListing(Table):
    """A list of `PublishedWeights` that prints as a table."""

    head = ("weights", "net", "pictures", "top-1", "parameters", "licence")

    def row(self, item):
        return (
            item.weights,
            item.net,
            f"{item.side}x{item.side}",
            f"{item.top1:.1f} %",
            f"{item.parameters:.2f} M",
            item.licence,
        )
