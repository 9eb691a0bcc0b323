"""kanets: a Keras 3 vision model zoo built on efficient attention."""

from kanets import (
    attention,
    data,
    export,
    layers,
    losses,
    nets,
    ops,
    optimizers,
    recipes,
    visualize,
)
from kanets.export import (
    export_litert,
    export_onnx,
    export_openvino,
    export_savedmodel,
    load_savedmodel,
)
from kanets.nets import KANet, KANetSegmenter
from kanets.zoo import (
    create_model,
    feature_model,
    list_models,
    load_model,
    save_model,
)

__version__ = "0.1.0"

__all__ = [
    "KANet",
    "KANetSegmenter",
    "attention",
    "create_model",
    "data",
    "export",
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_savedmodel",
    "feature_model",
    "layers",
    "list_models",
    "load_model",
    "load_savedmodel",
    "losses",
    "nets",
    "ops",
    "optimizers",
    "recipes",
    "save_model",
    "visualize",
]
