"""kanets: a Keras 3 vision model zoo built on efficient attention."""

from kanets import (
    data,
    export,
    layers,
    nets,
    ops,
    optimizers,
    recipes,
    visualize,
)
from kanets.export import export_savedmodel, load_savedmodel
from kanets.nets import KANet
from kanets.zoo import create_model, list_models, load_model, save_model

__version__ = "0.1.0"

__all__ = [
    "KANet",
    "create_model",
    "data",
    "export",
    "export_savedmodel",
    "layers",
    "list_models",
    "load_model",
    "load_savedmodel",
    "nets",
    "ops",
    "optimizers",
    "recipes",
    "save_model",
    "visualize",
]
