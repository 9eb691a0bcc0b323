"""Networks: functional Keras models."""

from kanets.nets.kanet import KANet, feature_maps
from kanets.nets.mobilenet_v2 import MobileNetV2

__all__ = ["KANet", "MobileNetV2", "feature_maps"]
