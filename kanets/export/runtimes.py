"""Runs an exported model with the runtime it was exported for, and no other.

Four formats, one way to call them: SavedModel (TensorFlow's C library, which
TensorFlow Serving is built on), LiteRT, ONNX (ONNX Runtime), OpenVINO. This
file stands alone: it needs NumPy and the runtime of the artifact, not Keras,
this package or Python's `tensorflow` module, so it also runs as a program
where they cannot be imported:

    python -I runtimes.py ARTIFACT --threads 1

with jobs on the standard input, see `main`. All runs on the CPU.
"""

import argparse
import contextlib
import ctypes
import functools
import importlib
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import threading
import time
import weakref

import numpy as np

SUFFIXES = {".tflite": "litert", ".onnx": "onnx", ".xml": "openvino"}
BLOCKED = ("keras", "kanets", "ylg")  # not importable in `main`'s process
_ACCEPTED = (
    "`artifact` must be a SavedModel (a version folder or a folder of "
    "versions), a folder with model.tflite, model.onnx, or model.xml and "
    "model.bin in it, or such a file."
)
_SIGNATURE = "serving_default"
_WARM_UP = 3  # calls before those that are timed


def load(artifact, threads=1, *, signature=None):
    """Loads an exported model on the CPU.

    Args:
        artifact: path, as in `find`.
        threads: positive int, the most threads a call computes with. For
            SavedModels the first one loaded in a process decides for the
            later ones how many threads compute inside one operation.
        signature: which signature of a SavedModel, default
            "serving_default". The other formats have no choice.

    Returns:
        A function from named NumPy arrays to a dict of NumPy arrays, its own,
        one per output. Strings are object arrays of bytes; as an input, lists
        of bytes and arrays of dtype S are taken, too (the latter lose zero
        bytes at their end). The batch is the first axis of every input. Where
        the artifact fixes it at b, rows are run b at a time. It may be
        called from many threads; LiteRT and OpenVINO answer one at a time. It
        has the attributes

        - `format`: "savedmodel", "litert", "onnx" or "openvino";
        - `inputs`: dict of name to (shape, dtype): a tuple with None where
          the size is open, and a NumPy dtype's name or "string";
        - `outputs`: tuple of names, sorted;
        - `runtime`: the package and its version, "onnxruntime 1.31.1".

        A call raises `ValueError` for inputs that do not fit, and
        `RuntimeError` with the runtime's message for what fails in there;
        calls after it work.

    Raises:
        FileNotFoundError: there is nothing of the kind, see `find`.
        ImportError: the package of the runtime is not installed.
        ValueError: the file is damaged or uses what the runtime lacks; an
            unknown signature; `threads` is no positive integer.

    Example:

    >>> classify = load("exported/birds")  # a folder with model.onnx in it
    >>> classify(images=np.zeros((1, 224, 224, 3), "float32"))["probabilities"]
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(
            f"`threads` must be a positive integer. Received: {threads!r}"
        )
    format, path = find(artifact)
    if format == "savedmodel":
        signature = _SIGNATURE if signature is None else signature
        return _SavedModel(path, threads, signature)
    if signature is not None:
        raise ValueError(
            "Only SavedModels have a choice of signatures. "
            f"Received: signature={signature!r}, artifact={str(path)!r}"
        )
    return {"litert": _LiteRT, "onnx": _ONNX, "openvino": _OpenVINO}[format](
        path, threads
    )


def find(artifact):
    """The format of an artifact and the path its runtime reads.

    Args:
        artifact: a SavedModel's version folder; a folder of versions, of
            which the highest is taken; a folder with `model.tflite`,
            `model.onnx`, or `model.xml` and `model.bin` in it; a file with
            one of these suffixes (`.xml` with its `.bin` beside it).

    Returns:
        ("savedmodel", the version folder), or ("litert", "onnx" or
        "openvino", the file); the path is a `pathlib.Path`.

    Raises:
        FileNotFoundError: there is no such path, nothing of these in the
            folder, or no `.bin` beside the `.xml`.
        ValueError: the file is of another kind, or the folder holds several.
    """
    path = pathlib.Path(artifact)
    received = f"Received: artifact={str(path)!r}"
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "savedmodel", path
        files = [path / f"model{suffix}" for suffix in SUFFIXES]
        files = [file for file in files if file.is_file()]
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            raise ValueError(f"{_ACCEPTED} {received}, which holds {names}")
        if not files:
            return "savedmodel", _highest_version(path, received)
        path = files[0]
    elif not path.exists():
        raise FileNotFoundError(f"{_ACCEPTED} {received}, which is not there")
    elif path.suffix not in SUFFIXES:
        raise ValueError(f"{_ACCEPTED} {received}")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise FileNotFoundError(
            f"An .xml file needs its .bin file beside it. {received}"
        )
    return SUFFIXES[path.suffix], path


def _highest_version(directory, received):
    versions = {
        int(path.name): path
        for path in directory.iterdir()
        if path.name.isascii()
        and path.name.isdigit()
        and (path / "saved_model.pb").is_file()
    }
    if not versions:
        raise FileNotFoundError(f"{_ACCEPTED} {received}, which holds none")
    return versions[max(versions)]


class _Loaded:
    """What the formats share: checks, batches, errors.

    A format has `_run`, which takes checked arrays and returns new ones.
    """

    def __init__(self, runtime, inputs, outputs):
        self.runtime = runtime
        self.inputs = inputs
        self.outputs = tuple(sorted(outputs))
        sizes = [shape[0] for shape, _ in inputs.values() if shape]
        # The batch that the artifact insists on, or None.
        self.fixed_batch = next((n for n in sizes if n is not None), None)

    def __call__(self, /, **feeds):
        if set(feeds) != set(self.inputs):
            raise ValueError(
                f"The inputs must be {', '.join(sorted(self.inputs))}. "
                f"Received: {', '.join(sorted(feeds)) or 'none'}"
            )
        feeds = {
            name: _checked(name, feeds[name], *expected)
            for name, expected in self.inputs.items()
        }
        rows = self._rows(feeds)
        step = self.fixed_batch or max(rows, 1)
        missing = -rows % step
        if missing:  # the last row again, to fill the last batch
            feeds = {
                name: np.concatenate([array, array[-1:].repeat(missing, 0)])
                for name, array in feeds.items()
            }
        try:
            parts = [
                self._run({k: v[i : i + step] for k, v in feeds.items()})
                for i in range(0, max(rows, 1), step)
            ]
        except Exception as error:  # the runtimes have classes of their own
            raise RuntimeError(str(error)) from error
        if len(parts) == 1 and not missing:
            return parts[0]
        return {
            name: np.concatenate([part[name] for part in parts])[:rows]
            for name in self.outputs
        }

    def _rows(self, feeds):
        sizes = {name: len(array) for name, array in feeds.items()}
        rows = max(sizes.values(), default=1)
        received = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        if len(set(sizes.values())) > 1:
            wrong = "The inputs must have as many rows."
        elif rows == 0 and self.format != "savedmodel":
            wrong = "A batch must have a row at least."
        else:
            return rows
        raise ValueError(f"{wrong} Received: {received}")


def _checked(name, value, shape, dtype):
    """The array of an input; a batch need not be the artifact's."""
    if dtype == "string":
        array = np.array(value, object)
        for item in array.flat:
            if not isinstance(item, bytes):
                raise ValueError(
                    f"`{name}` must hold bytes. "
                    f"Received: {type(item).__name__} in {name}"
                )
    else:
        array = np.asarray(value)
        if array.dtype.name != dtype:
            raise ValueError(
                f"`{name}` must be {dtype}. Received: {name} of {array.dtype}"
            )
    wanted = (None,) * array.ndim if shape is None else shape  # of any rank
    pairs = zip(wanted[1:], array.shape[1:], strict=False)
    if not 0 < array.ndim == len(wanted) or any(
        want not in (None, have) for want, have in pairs
    ):
        raise ValueError(
            f"`{name}` must have the shape {shape or '(batch, ...)'}. "
            f"Received: {name} of shape {array.shape}"
        )
    return array


class _LiteRT(_Loaded):
    format = "litert"

    def __init__(self, path, threads):
        module = _import(
            "ai_edge_litert.interpreter", "ai-edge-litert", "litert"
        )
        with _loading(path):
            interpreter = module.Interpreter(str(path), num_threads=threads)
            self._runner = interpreter.get_signature_runner(_SIGNATURE)
            details = self._runner.get_input_details()
            outputs = self._runner.get_output_details()
        self._lock = threading.Lock()
        inputs = {}
        for name, info in details.items():
            shape = _shape(info["shape_signature"])
            inputs[name] = shape, np.dtype(info["dtype"]).name
        package = sys.modules["ai_edge_litert"]
        version = getattr(package, "__version__", "?")
        super().__init__(f"ai-edge-litert {version}", inputs, outputs)

    def _run(self, feeds):
        with self._lock:  # resizes the inputs where need be
            outputs = self._runner(**feeds)
            return {name: np.array(outputs[name]) for name in self.outputs}


class _ONNX(_Loaded):
    format = "onnx"

    def __init__(self, path, threads):
        module = _import("onnxruntime", "onnxruntime", "onnx")
        options = module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        with _loading(path):
            self._session = module.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        names = {"float": "float32", "double": "float64"}
        inputs = {}
        for entry in self._session.get_inputs():
            dtype = entry.type.removeprefix("tensor(").removesuffix(")")
            inputs[entry.name] = _shape(entry.shape), names.get(dtype, dtype)
        outputs = [entry.name for entry in self._session.get_outputs()]
        super().__init__(f"onnxruntime {module.__version__}", inputs, outputs)

    def _run(self, feeds):
        outputs = self._session.run(list(self.outputs), feeds)
        return dict(zip(self.outputs, outputs, strict=True))


class _OpenVINO(_Loaded):
    format = "openvino"

    def __init__(self, path, threads):
        silence_openvino()
        module = _import("openvino", "openvino", "openvino")
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        with _loading(path):
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
            inputs[port.any_name] = _shape(sizes), dtype
        version = module.__version__.split("-")[0]
        super().__init__(f"openvino {version}", inputs, self._ports)

    def _run(self, feeds):
        with self._lock:
            outputs = self._request.infer(feeds)
            return {
                name: np.array(outputs[self._ports[name]])
                for name in self.outputs
            }


def _shape(sizes):
    """A tuple of sizes; names and negative numbers stand for open ones."""
    return tuple(
        # In protobuf's wire format -1 is 2**64 - 1.
        int(n) if isinstance(n, int | np.integer) and 0 <= n < 2**63 else None
        for n in sizes
    )


def silence_openvino():
    """Keeps OpenVINO, imported after this, from reporting to its makers.

    It can do without the package that does so, from processes that disturb
    what is timed. One that is imported already stays.
    """
    sys.modules.setdefault("openvino_telemetry", None)


def _import(module, package, extra):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package_of = f"{package} (of the extra kanets[{extra}])"
        raise _missing(package, error, package_of) from error


def _missing(package, reason, runtime=None):
    return ImportError(
        f"This artifact runs with {runtime or package}: "
        f"`pip install {package}`. Received: {_one_line(reason)}"
    )


@contextlib.contextmanager
def _loading(path):
    try:
        yield
    except Exception as error:  # the runtimes have classes of their own
        raise ValueError(
            f"The artifact cannot be loaded: {_one_line(error)} "
            f"Received: artifact={str(path)!r}"
        ) from error


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


# TensorFlow's C library: tensorflow/c/c_api.h, tf_tensor.h, tf_tstring.h.

_DTYPES = {
    **{1: "float32", 2: "float64", 19: "float16", 7: "string", 10: "bool"},
    **{6: "int8", 5: "int16", 3: "int32", 9: "int64"},
    **{4: "uint8", 17: "uint16", 22: "uint32", 23: "uint64"},
}
_NUMBERS = {name: number for number, name in _DTYPES.items()}
_STRING_SIZE = 24  # bytes of a TF_TString
_TYPES = {
    **{"v": None, "p": ctypes.c_void_p, "s": ctypes.c_char_p},
    **{"i": ctypes.c_int, "q": ctypes.c_int64, "z": ctypes.c_size_t},
}
_FUNCTIONS = {  # what is returned and the arguments, then who has these
    "ip": "TF_GetCode TF_NumDims TF_TensorType",
    "p": "TF_NewBuffer TF_NewGraph TF_NewSessionOptions TF_NewStatus",
    "pipiz": "TF_AllocateTensor",
    "pp": "TF_StringGetDataPointer TF_TensorData",
    "pppspippp": "TF_LoadSessionFromSavedModel",
    "pps": "TF_GraphOperationByName",
    "qpi": "TF_Dim",
    "s": "TF_Version",
    "sp": "TF_Message",
    "vp": "TF_DeleteBuffer TF_DeleteGraph TF_DeleteSessionOptions "
    "TF_DeleteStatus TF_DeleteTensor TF_StringDealloc TF_StringInit",
    "vpp": "TF_CloseSession TF_DeleteSession",
    "vppppippipipp": "TF_SessionRun",
    "vpsz": "TF_StringCopy",
    "vpszp": "TF_SetConfig",
    "zp": "TF_StringGetSize",
}


class _Output(ctypes.Structure):  # TF_Output
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


@functools.cache
def _tensorflow():
    """TensorFlow's C functions, out of the Python package, without Python."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise _missing("tensorflow", "No module named 'tensorflow'")
    folder = pathlib.Path(spec.origin).parent
    ending = "{}.2.dylib" if sys.platform == "darwin" else "{}.so.2"
    try:
        for name in ("libtensorflow_framework", "libtensorflow_cc"):
            # Not RTLD_GLOBAL: its BoringSSL would stand in for the OpenSSL
            # of `hashlib` and `ssl`, and crash them.
            library = ctypes.CDLL(str(folder / ending.format(name)))
    except OSError as error:
        raise _missing("tensorflow", error) from error
    for types, names in _FUNCTIONS.items():
        for name in names.split():
            function = getattr(library, name)
            function.restype, *function.argtypes = (_TYPES[t] for t in types)
    return library


def _call(c, name, *arguments):
    """Calls a function whose last argument is a status."""
    status = c.TF_NewStatus()
    try:
        result = getattr(c, name)(*arguments, status)
        if c.TF_GetCode(status):
            message = c.TF_Message(status).decode(errors="replace")
            raise RuntimeError(message)
        return result
    finally:
        c.TF_DeleteStatus(status)


class _SavedModel(_Loaded):
    format = "savedmodel"

    def __init__(self, path, threads, signature):
        c = self._c = _tensorflow()
        with _loading(path):
            graph, self._session, meta_graph = _open(c, path, threads)
            close = weakref.finalize(self, _close, c, graph, self._session)
            close.atexit = False  # other threads may still be in a call
            signatures = _signatures(meta_graph)
        # Keras adds one that restores the weights; it is no endpoint.
        names = sorted(n for n in signatures if not n.startswith("__"))
        if signature not in names:
            raise ValueError(
                f"The artifact must have the signature {signature!r}. Received:"
                f" artifact={str(path)!r} with {', '.join(names) or 'none'}"
            )
        with _loading(path):
            inputs, outputs = (
                {name: _tensor_info(infos[name]) for name in sorted(infos)}
                for infos in signatures[signature]
            )
            self._feeds = _ports(c, graph, inputs)
            self._fetches = _ports(c, graph, outputs)
        super().__init__(
            f"tensorflow {c.TF_Version().decode()}",
            {name: info[1:] for name, info in inputs.items()},
            outputs,
        )

    def _run(self, feeds):
        c, arrays = self._c, [feeds[name] for name in self.inputs]
        given = (ctypes.c_void_p * len(self._feeds))()
        found = (ctypes.c_void_p * len(self._fetches))()
        try:
            for place, array in enumerate(arrays):
                given[place] = _to_tensor(c, array)
            _call(
                c,
                "TF_SessionRun",
                *(self._session, None, self._feeds, given, len(given)),
                *(self._fetches, found, len(found), None, 0, None),
            )
            outputs = [_to_array(c, tensor) for tensor in found]
            return dict(zip(self.outputs, outputs, strict=True))
        finally:
            for tensor in filter(None, found):
                c.TF_DeleteTensor(tensor)
            # Last: an output may be an input that is passed on.
            for array, tensor in zip(arrays, given, strict=True):
                if tensor is not None:
                    _delete_input(c, tensor, array)


def _open(c, path, threads):
    """The graph, the session and the serialized MetaGraphDef."""
    config = _config(threads)
    tags = (ctypes.c_char_p * 1)(b"serve")
    folder = str(path).encode()
    options, graph = c.TF_NewSessionOptions(), c.TF_NewGraph()
    buffer = c.TF_NewBuffer()
    try:
        _call(c, "TF_SetConfig", options, config, len(config))
        session = _call(
            c,
            "TF_LoadSessionFromSavedModel",
            *(options, None, folder, tags, 1, graph, buffer),
        )
        # A TF_Buffer starts with the address of its data and their size.
        place = (ctypes.c_size_t * 2).from_address(buffer)
        return graph, session, ctypes.string_at(*place)
    except BaseException:
        c.TF_DeleteGraph(graph)
        raise
    finally:
        c.TF_DeleteBuffer(buffer)
        c.TF_DeleteSessionOptions(options)


def _close(c, graph, session):
    for name in ("TF_CloseSession", "TF_DeleteSession"):
        with contextlib.suppress(RuntimeError):
            _call(c, name, session)
    c.TF_DeleteGraph(graph)


def _config(threads):
    """A serialized ConfigProto: no GPUs, so many threads, of its own."""
    # device_count = 1, intra_op_parallelism_threads = 2,
    # inter_op_parallelism_threads = 5, use_per_session_threads = 9
    no_gpus, count = b"\x0a\x07\x0a\x03GPU\x10\x00", _varint(threads)
    return no_gpus + b"\x10" + count + b"\x28" + count + b"\x48\x01"


def _ports(c, graph, infos):
    ports = (_Output * len(infos))()
    for place, (tensor, *_) in enumerate(infos.values()):
        name, _, index = tensor.rpartition(":")
        operation = c.TF_GraphOperationByName(graph, name.encode())
        if operation is None:
            raise ValueError(f"there is no tensor {tensor!r}")
        ports[place] = operation, int(index)
    return ports


def _to_tensor(c, array):
    is_string = array.dtype == object
    dims = (ctypes.c_int64 * array.ndim)(*array.shape)
    number = _NUMBERS["string" if is_string else array.dtype.name]
    size = _STRING_SIZE * array.size if is_string else array.nbytes
    tensor = c.TF_AllocateTensor(number, dims, array.ndim, size)
    data = c.TF_TensorData(tensor)
    if is_string:
        for place, item in enumerate(array.flat):
            string = data + _STRING_SIZE * place
            c.TF_StringInit(string)
            c.TF_StringCopy(string, item, len(item))
    else:
        array = np.ascontiguousarray(array)
        ctypes.memmove(data, array.ctypes.data, size)
    return tensor


def _delete_input(c, tensor, array):
    # The header does not say whether a tensor frees its strings. In 2.21 it
    # does; they are empty by then, so nothing is freed twice.
    if array.dtype == object:
        data = c.TF_TensorData(tensor)
        for place in range(array.size):
            c.TF_StringDealloc(data + _STRING_SIZE * place)
    c.TF_DeleteTensor(tensor)


def _to_array(c, tensor):
    shape = [c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor))]
    dtype = _DTYPES[c.TF_TensorType(tensor)]
    data = c.TF_TensorData(tensor)
    array = np.empty(shape, object if dtype == "string" else dtype)
    if array.dtype != object:
        ctypes.memmove(array.ctypes.data, data, array.nbytes)
        return array
    for place in range(array.size):
        string = data + _STRING_SIZE * place
        size = c.TF_StringGetSize(string)
        string = c.TF_StringGetDataPointer(string)
        array.flat[place] = ctypes.string_at(string, size)
    return array


# As much of protobuf's wire format as signatures need.


def _signatures(meta_graph):
    """Maps names to (inputs, outputs), each a dict of name to TensorInfo."""
    return {
        name: (dict(_map(value, 1)), dict(_map(value, 2)))
        for name, value in _map(memoryview(meta_graph), 5)  # signature_def
    }


def _tensor_info(info):
    """Name of the tensor, shape (None if its rank is open) and dtype."""
    fields = dict(_fields(info))
    dtype = fields.get(2, 0)
    if 1 not in fields or dtype not in _DTYPES:
        raise ValueError(
            f"an input or output is no dense tensor of a known dtype: {dtype}"
        )
    shape = fields.get(3, b"")
    dims = [dict(_fields(v)) for number, v in _fields(shape) if number == 2]
    sizes = [dim.get(1, 0) for dim in dims]
    unknown_rank = dict(_fields(shape)).get(3)
    shape = None if unknown_rank else _shape(sizes)
    return bytes(fields[1]).decode(), shape, _DTYPES[dtype]


def _map(message, number):
    for field, entry in _fields(message):
        if field == number:
            entry = dict(_fields(entry))
            yield bytes(entry.get(1, b"")).decode(), entry.get(2, b"")


def _fields(message):
    """Yields number and value of each field: int, or bytes not copied."""
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _read_varint(message, place)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size, place = _read_varint(message, place)
            value = message[place : place + size]
            place += size
        yield key >> 3, value


def _read_varint(message, place):
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _varint(value):
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


def main(arguments=None):
    """The program; returns the exit status.

    What `BLOCKED` names cannot be imported in its process from here on. The
    first line of the standard output says what was loaded: {"format": ...,
    "runtime": ..., "inputs": ..., "outputs": ...}. Then each line of the
    standard input, {"feeds": "a.npz", "results": "b.npz"}, is answered by
    {"results": "b.npz"} once that is written: the first file holds an array
    for each input, the second gets one for each output. So a caller can feed
    more than fits in memory. At the end of the input comes {"latency_ms":
    ...}: the median of `--rounds` calls with one row of the first job (as
    many as a fixed batch has) after a warm-up, null if there was no job.

    An error is one line on the standard error, the last one where a runtime
    has logged before, and the status 1. Strings are arrays of dtype S in the
    files, which are read and written without pickle.
    """
    for name in BLOCKED:
        sys.modules[name] = None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(
        description="Runs an exported model without Keras."
    )
    parser.add_argument("artifact")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(arguments)
    with open(os.dup(1), "w", buffering=1, encoding="utf-8") as output:
        os.dup2(2, 1)  # what the runtimes print is no answer
        try:
            for answer in _answers(options):
                print(json.dumps(answer), file=output)
        except Exception as error:
            print(_one_line(error), file=sys.stderr)
            return 1
    return 0


def _answers(options):
    loaded = load(options.artifact, options.threads)
    names = ("format", "runtime", "inputs", "outputs")
    yield {name: getattr(loaded, name) for name in names}
    first = latency = None
    for line in sys.stdin:
        job = json.loads(line)
        with np.load(job["feeds"], allow_pickle=False) as file:
            feeds = dict(file)
        results = loaded(**feeds)
        for name, array in results.items():
            if array.dtype == object:
                results[name] = array.astype("S")
        np.savez(job["results"], **results)
        yield {"results": job["results"]}
        if first is None:
            few = loaded.fixed_batch or 1
            first = {name: array[:few] for name, array in feeds.items()}
    if first is not None:
        latency = _latency(loaded, first, options.rounds)
    yield {"latency_ms": latency}


def _latency(loaded, feeds, rounds):
    """Median milliseconds of a call."""
    seconds = []
    for _ in range(_WARM_UP + rounds):
        start = time.perf_counter()
        loaded(**feeds)
        seconds.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(seconds[_WARM_UP:]), 3)


if __name__ == "__main__":
    sys.exit(main())
