"""Models in the form their consumer wants."""

from kanets.export.bundle import find_savedmodel
from kanets.export.folding import fold
from kanets.export.generator import is_generator
from kanets.export.models_config import (
    write_batching_parameters,
    write_models_config,
)
from kanets.export.portable import (
    export_litert,
    export_onnx,
    export_openvino,
)
from kanets.export.savedmodel import (
    export_savedmodel,
    load_savedmodel,
    load_segmenter_savedmodel,
)
from kanets.export.segmenter import is_segmenter
from kanets.export.triton import export_triton

__all__ = [
    "export_litert",
    "export_onnx",
    "export_openvino",
    "export_savedmodel",
    "export_triton",
    "find_savedmodel",
    "fold",
    "is_generator",
    "is_segmenter",
    "load_savedmodel",
    "load_segmenter_savedmodel",
    "write_batching_parameters",
    "write_models_config",
]
