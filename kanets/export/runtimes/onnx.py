"""ONNX Runtime: `model.onnx`."""

from .base import Loaded, as_shape, import_package, reading


class ONNX(Loaded):
    format = "onnx"

    def __init__(self, path, threads):
        module = import_package("onnxruntime", "onnxruntime", "onnx")
        options = module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        with reading(path):
            self._session = module.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        names = {"float": "float32", "double": "float64"}
        inputs = {}
        for entry in self._session.get_inputs():
            dtype = entry.type.removeprefix("tensor(").removesuffix(")")
            inputs[entry.name] = as_shape(entry.shape), names.get(dtype, dtype)
        outputs = [entry.name for entry in self._session.get_outputs()]
        super().__init__(f"onnxruntime {module.__version__}", inputs, outputs)

    def _run(self, feeds):
        outputs = self._session.run(list(self.outputs), feeds)
        return dict(zip(self.outputs, outputs, strict=True))
