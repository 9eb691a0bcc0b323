# What `kanets` holds, for editors and for `lazy_loader`.

from . import (
    attention,
    data,
    evaluation,
    export,
    files,
    layers,
    nets,
    ops,
    quantization,
    train,
    visualize,
    zoo,
)
from .export import (
    export_litert,
    export_onnx,
    export_openvino,
    export_savedmodel,
    export_triton,
    load_savedmodel,
)
from .language import Captioner, Matcher
from .nets import (
    EfficientNetLite,
    EfficientViT,
    KANet,
    KANetSegmenter,
    MobileNetV4,
    SHViT,
    ViT,
    insert_attention,
)
from .train import augment, checkpoints, losses, optimizers, recipes
from .zoo import (
    create_model,
    feature_model,
    list_models,
    load_model,
    push_model,
    save_model,
)

__version__: str

__all__ = [
    "Captioner",
    "EfficientNetLite",
    "EfficientViT",
    "KANet",
    "KANetSegmenter",
    "Matcher",
    "MobileNetV4",
    "SHViT",
    "ViT",
    "attention",
    "augment",
    "checkpoints",
    "create_model",
    "data",
    "evaluation",
    "export",
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_savedmodel",
    "export_triton",
    "feature_model",
    "files",
    "insert_attention",
    "layers",
    "list_models",
    "load_model",
    "load_savedmodel",
    "losses",
    "nets",
    "ops",
    "optimizers",
    "push_model",
    "quantization",
    "recipes",
    "save_model",
    "train",
    "visualize",
    "zoo",
]
