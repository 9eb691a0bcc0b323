"""SavedModels, with what TensorFlow Serving is built on."""

import contextlib
import ctypes
import weakref

from . import protobuf
from .base import Loaded, reading
from .tensorflow_c import (
    Output,
    call,
    delete_input,
    functions,
    to_array,
    to_tensor,
)


class SavedModel(Loaded):
    format = "savedmodel"

    def __init__(self, path, threads, signature):
        c = self._c = functions()
        with reading(path):
            graph, self._session, meta_graph = _open(c, path, threads)
            close = weakref.finalize(self, _close, c, graph, self._session)
            close.atexit = False  # other threads may still be in a call
            signatures = protobuf.signatures(meta_graph)
        # Keras adds one that restores the weights; it is no endpoint.
        names = sorted(n for n in signatures if not n.startswith("__"))
        if signature not in names:
            raise ValueError(
                f"The artifact must have the signature {signature!r}. Received:"
                f" artifact={str(path)!r} with {', '.join(names) or 'none'}"
            )
        with reading(path):
            inputs, outputs = (
                {
                    name: protobuf.tensor_info(infos[name])
                    for name in sorted(infos)
                }
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
                given[place] = to_tensor(c, array)
            call(
                c,
                "TF_SessionRun",
                *(self._session, None, self._feeds, given, len(given)),
                *(self._fetches, found, len(found), None, 0, None),
            )
            outputs = [to_array(c, tensor) for tensor in found]
            return dict(zip(self.outputs, outputs, strict=True))
        finally:
            for tensor in filter(None, found):
                c.TF_DeleteTensor(tensor)
            # Last: an output may be an input that is passed on.
            for array, tensor in zip(arrays, given, strict=True):
                if tensor is not None:
                    delete_input(c, tensor, array)


def _open(c, path, threads):
    """The graph, the session and the serialized MetaGraphDef."""
    config = _config(threads)
    tags = (ctypes.c_char_p * 1)(b"serve")
    folder = str(path).encode()
    options, graph = c.TF_NewSessionOptions(), c.TF_NewGraph()
    buffer = c.TF_NewBuffer()
    try:
        call(c, "TF_SetConfig", options, config, len(config))
        session = call(
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
            call(c, name, session)
    c.TF_DeleteGraph(graph)


def _config(threads):
    """A serialized ConfigProto: no GPUs, so many threads, of its own."""
    # device_count = 1, intra_op_parallelism_threads = 2,
    # inter_op_parallelism_threads = 5, use_per_session_threads = 9
    no_gpus, count = b"\x0a\x07\x0a\x03GPU\x10\x00", protobuf.varint(threads)
    return no_gpus + b"\x10" + count + b"\x28" + count + b"\x48\x01"


def _ports(c, graph, infos):
    ports = (Output * len(infos))()
    for place, (tensor, *_) in enumerate(infos.values()):
        name, _, index = tensor.rpartition(":")
        operation = c.TF_GraphOperationByName(graph, name.encode())
        if operation is None:
            raise ValueError(f"there is no tensor {tensor!r}")
        ports[place] = operation, int(index)
    return ports
