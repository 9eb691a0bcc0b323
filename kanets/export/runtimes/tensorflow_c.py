"""TensorFlow's C functions: tensorflow/c/c_api.h, tf_tensor.h, tf_tstring.h."""

import ctypes
import functools
import importlib.util
import pathlib
import sys

import numpy as np

from .base import missing_package

DTYPES = {
    **{1: "float32", 2: "float64", 19: "float16", 7: "string", 10: "bool"},
    **{6: "int8", 5: "int16", 3: "int32", 9: "int64"},
    **{4: "uint8", 17: "uint16", 22: "uint32", 23: "uint64"},
}
_NUMBERS = {name: number for number, name in DTYPES.items()}
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


class Output(ctypes.Structure):  # TF_Output
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


@functools.cache
def functions():
    """TensorFlow's C functions, out of the Python package, without Python."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise missing_package("tensorflow", "No module named 'tensorflow'")
    folder = pathlib.Path(spec.origin).parent
    ending = "{}.2.dylib" if sys.platform == "darwin" else "{}.so.2"
    try:
        for name in ("libtensorflow_framework", "libtensorflow_cc"):
            # Not RTLD_GLOBAL: its BoringSSL would stand in for the OpenSSL
            # of `hashlib` and `ssl`, and crash them.
            library = ctypes.CDLL(str(folder / ending.format(name)))
    except OSError as error:
        raise missing_package("tensorflow", error) from error
    for types, names in _FUNCTIONS.items():
        for name in names.split():
            function = getattr(library, name)
            function.restype, *function.argtypes = (_TYPES[t] for t in types)
    return library


def call(c, name, *arguments):
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


def to_tensor(c, array):
    """A TF_Tensor with a copy of an array, to be freed by `delete_input`."""
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


def delete_input(c, tensor, array):
    """Frees what `to_tensor` made of an array."""
    # The header does not say whether a tensor frees its strings. In 2.21 it
    # does; they are empty by then, so nothing is freed twice.
    if array.dtype == object:
        data = c.TF_TensorData(tensor)
        for place in range(array.size):
            c.TF_StringDealloc(data + _STRING_SIZE * place)
    c.TF_DeleteTensor(tensor)


def to_array(c, tensor):
    """An array with a copy of a TF_Tensor."""
    shape = [c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor))]
    dtype = DTYPES[c.TF_TensorType(tensor)]
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
