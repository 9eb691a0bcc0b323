"""Pictures of what was measured, predicted and looked at."""

from kanets.visualize.attention import (
    attention_layers,
    attention_map,
    attention_sheet,
    attention_weights,
)
from kanets.visualize.curves import plot_curves
from kanets.visualize.overlays import (
    overlay,
    overlay_sheet,
    palette,
    save_segmentation,
)

__all__ = [
    "attention_layers",
    "attention_map",
    "attention_sheet",
    "attention_weights",
    "overlay",
    "overlay_sheet",
    "palette",
    "plot_curves",
    "save_segmentation",
]
