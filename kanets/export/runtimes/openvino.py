"""OpenVINO: `model.xml` and `model.bin`."""

import sys
import threading

import numpy as np

from .base import Loaded, as_shape, import_package, reading


class OpenVINO(Loaded):
    format = "openvino"

    def __init__(self, path, threads):
        silence_openvino()
        module = import_package("openvino", "openvino", "openvino")
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        with reading(path):
            core = module.Core()
            model = core.compile_model(core.read_model(path), "CPU", options)
        self._request = model.create_infer_request()
        self._lock = threading.Lock()
        self._ports = {port.any_name: port for port in model.outputs}
        inputs = {}
        for port in model.inputs:
            sizes = [
                n.get_length() if n.is_static else None
                for n in port.partial_shape
            ]
            dtype = port.element_type.to_dtype().name
            inputs[port.any_name] = as_shape(sizes), dtype
        version = module.__version__.split("-")[0]
        super().__init__(f"openvino {version}", inputs, self._ports)

    def _run(self, feeds):
        with self._lock:
            outputs = self._request.infer(feeds)
            return {
                name: np.array(outputs[self._ports[name]])
                for name in self.outputs
            }


def silence_openvino():
    """Keeps OpenVINO, imported after this, from reporting to its makers.

    It can do without the package that does so, from processes that disturb
    what is timed. One that is imported already stays.
    """
    sys.modules.setdefault("openvino_telemetry", None)
