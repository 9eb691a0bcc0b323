"""Networks: functional Keras models."""

import sys

from kanets.nets import counting
from kanets.nets.counting import multiply_adds
from kanets.nets.efficientnet_lite import EfficientNetLite
from kanets.nets.efficientvit import EfficientViT
from kanets.nets.insertion import insert_attention
from kanets.nets.kanet import KANet, feature_maps
from kanets.nets.kanet_segmenter import KANetSegmenter
from kanets.nets.logits import logits_model
from kanets.nets.mobilenet_v4 import MobileNetV4
from kanets.nets.mobilenets import MobileNetV2, MobileNetV3Small
from kanets.nets.registry import builders
from kanets.nets.shvit import SHViT
from kanets.nets.vit import ViT

# `kanets.nets.multiply_adds` is a function; what was a module of that name can
# still be imported from.
sys.modules[f"{__name__}.multiply_adds"] = counting

CLASSIFIERS = builders("classification")  # those of the table, by name

__all__ = [
    "CLASSIFIERS",
    "EfficientNetLite",
    "EfficientViT",
    "KANet",
    "KANetSegmenter",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV4",
    "SHViT",
    "ViT",
    "feature_maps",
    "insert_attention",
    "logits_model",
    "multiply_adds",
]
