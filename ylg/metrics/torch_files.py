"""Arrays of PyTorch's files of weights, without PyTorch.

Since 1.6 `torch.save` writes a zip of a pickle and one raw file a storage;
before, pickles and then the storages, in one stream. Of a pickle, only what
arrays are made of is ever called.
"""

import collections
import math
import pickle
import zipfile
from pathlib import Path

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # of files before 1.6
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def load_torch_file(path):
    """The arrays of a state dict that `torch.save` wrote.

    Args:
        path: file, of PyTorch 1.6 and later or of earlier ones, written where
            bytes are in little-endian order.

    Returns:
        Dict from names to arrays, in the file's order.

    Raises:
        ValueError: no such file, one that is cut off, one that holds anything
            but arrays by their names.
        OSError: no file there.
    """
    path = Path(path)
    try:
        zipped = zipfile.is_zipfile(path)
        found = _load_zip(path) if zipped else _load_stream(path)
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        for name, value in found.items():
            if not isinstance(value, np.ndarray):
                raise ValueError(f"{name!r} is a {type(value).__name__}")
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError),
        *(EOFError, pickle.UnpicklingError, zipfile.BadZipFile),
    ) as error:
        raise ValueError(
            "A file of PyTorch's must be a state dict, names and arrays alone: "
            f"{error}. Received: {str(path)!r}"
        ) from error
    return dict(found)


def _load_zip(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("its zip has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in names and archive.read(order) != b"little":
            raise ValueError("its bytes are in big-endian order")

        def storage(key, dtype, count):
            data = archive.read(f"{root}data/{key}")
            return np.frombuffer(data, dtype, count)

        with archive.open(pickles[0]) as file:
            return _Unpickler(file, storage).load()


def _load_stream(path):
    size = path.stat().st_size
    storages = {}

    def storage(key, dtype, count):
        if key not in storages:
            if not 0 <= count * np.dtype(dtype).itemsize <= size:
                raise ValueError(f"{count} numbers are more than it has")
            storages[key] = np.zeros(count, dtype)
        return storages[key]

    with path.open("rb") as file:
        if _Unpickler(file, storage).load() != _MAGIC:
            raise ValueError("it does not begin as one")
        for _ in ("protocol", "system"):
            _Unpickler(file, storage).load()
        found = _Unpickler(file, storage).load()
        for key in _Unpickler(file, storage).load():
            array = storages[key]
            (count,) = np.fromfile(file, "<i8", 1)
            if count != len(array) or file.readinto(array) != array.nbytes:
                raise ValueError("it is cut off")
    return found


class _Unpickler(pickle.Unpickler):
    """Calls nothing but what stands here; storages come from a function."""

    def __init__(self, file, storage):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module, name):
        match module, name:
            case "collections", "OrderedDict":
                return collections.OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _array
            case "torch._utils", "_rebuild_parameter":
                return _parameter
            case "torch", _ if name in _DTYPES:
                return _DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, identifier):
        kind, dtype, key, _, count, *_ = identifier
        if kind != "storage":
            raise pickle.UnpicklingError(f"it asks for a {kind}")
        return self._storage(key, dtype, count)


def _array(storage, offset, shape, strides, *_):
    """A view of a storage, within its bounds."""
    if min([offset, *shape, *strides], default=0) < 0:
        raise ValueError("a tensor has a negative size")
    reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if math.prod(shape) and offset + reach >= len(storage):
        raise ValueError("a tensor is larger than its storage")
    return np.lib.stride_tricks.as_strided(
        storage[offset:],
        shape,
        [s * storage.itemsize for s in strides],
        writeable=False,
    )


def _parameter(array, *_):
    return array
