"""Networks: functional Keras models."""

from kanets.nets.kanet import KANet, feature_maps
from kanets.nets.kanet_segmenter import KANetSegmenter
from kanets.nets.mobilenets import MobileNetV2, MobileNetV3Small
from kanets.nets.multiply_adds import multiply_adds

__all__ = [
    "KANet",
    "KANetSegmenter",
    "MobileNetV2",
    "MobileNetV3Small",
    "feature_maps",
    "multiply_adds",
]
