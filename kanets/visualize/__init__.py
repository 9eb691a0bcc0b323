"""Pictures of what was measured, predicted and looked at."""

from kanets.visualize.attention import (
    attention_layers,
    attention_map,
    attention_sheet,
    attention_weights,
)
from kanets.visualize.attention_rollout import (
    rollout,
    rollout_map,
    rollout_sheet,
)
from kanets.visualize.curves import plot_curves
from kanets.visualize.gradient_cam import grad_cam, grad_cam_sheet
from kanets.visualize.overlays import (
    overlay,
    overlay_sheet,
    palette,
    save_segmentation,
)
from kanets.visualize.reports import (
    class_bars,
    confusion_matrix,
    mistakes_sheet,
)

__all__ = [
    "attention_layers",
    "attention_map",
    "attention_sheet",
    "attention_weights",
    "class_bars",
    "confusion_matrix",
    "grad_cam",
    "grad_cam_sheet",
    "mistakes_sheet",
    "overlay",
    "overlay_sheet",
    "palette",
    "plot_curves",
    "rollout",
    "rollout_map",
    "rollout_sheet",
    "save_segmentation",
]
