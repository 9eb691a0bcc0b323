"""LiteRT, for phones: `model.tflite`."""

import sys
import threading

import numpy as np

from .base import SIGNATURE, Loaded, as_shape, import_package, reading


class LiteRT(Loaded):
    format = "litert"

    def __init__(self, path, threads):
        module = import_package(
            "ai_edge_litert.interpreter", "ai-edge-litert", "litert"
        )
        with reading(path):
            interpreter = module.Interpreter(str(path), num_threads=threads)
            self._runner = interpreter.get_signature_runner(SIGNATURE)
            details = self._runner.get_input_details()
            outputs = self._runner.get_output_details()
        self._lock = threading.Lock()
        inputs = {}
        for name, info in details.items():
            shape = as_shape(info["shape_signature"])
            inputs[name] = shape, np.dtype(info["dtype"]).name
        package = sys.modules["ai_edge_litert"]
        version = getattr(package, "__version__", "?")
        super().__init__(f"ai-edge-litert {version}", inputs, outputs)

    def _run(self, feeds):
        with self._lock:  # resizes the inputs where need be
            outputs = self._runner(**feeds)
            return {name: np.array(outputs[name]) for name in self.outputs}
