"""Runs an exported model with the runtime it was exported for, and no other.

Four formats, one way to call them: SavedModel (TensorFlow's C library, which
TensorFlow Serving is built on), LiteRT, ONNX (ONNX Runtime), OpenVINO. This
folder stands alone: it needs NumPy and the runtime of the artifact, not Keras,
this package or Python's `tensorflow` module, so it also runs as a program
where they cannot be imported:

    python -I kanets/export/runtimes ARTIFACT --threads 1

with jobs on the standard input, see `main`. All runs on the CPU. Its imports
are relative, so that it can be loaded from any place, by any name.
"""

from .finding import SUFFIXES, find
from .loading import load
from .openvino import silence_openvino
from .program import BLOCKED, main

__all__ = ["BLOCKED", "SUFFIXES", "find", "load", "main", "silence_openvino"]
