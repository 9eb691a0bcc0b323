"""Networks: functional Keras models."""

from kanets.nets.kanet import KANet, feature_maps
from kanets.nets.kanet_segmenter import KANetSegmenter
from kanets.nets.mobilenets import MobileNetV2, MobileNetV3Small
from kanets.nets.multiply_adds import multiply_adds

# The classifiers that a recipe or an entry of the zoo can name.
CLASSIFIERS = {
    "KANet": KANet,
    "MobileNetV2": MobileNetV2,
    "MobileNetV3Small": MobileNetV3Small,
}

__all__ = [
    "CLASSIFIERS",
    "KANet",
    "KANetSegmenter",
    "MobileNetV2",
    "MobileNetV3Small",
    "feature_maps",
    "multiply_adds",
]
