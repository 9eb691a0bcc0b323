"""As much of protobuf's wire format as signatures need."""

from .base import as_shape
from .tensorflow_c import DTYPES


def signatures(meta_graph):
    """Maps names to (inputs, outputs), each a dict of name to TensorInfo."""
    return {
        name: (dict(_map(value, 1)), dict(_map(value, 2)))
        for name, value in _map(memoryview(meta_graph), 5)  # signature_def
    }


def tensor_info(info):
    """Name of the tensor, shape (None if its rank is open) and dtype."""
    fields = dict(_fields(info))
    dtype = fields.get(2, 0)
    if 1 not in fields or dtype not in DTYPES:
        raise ValueError(
            f"an input or output is no dense tensor of a known dtype: {dtype}"
        )
    shape = fields.get(3, b"")
    dims = [dict(_fields(v)) for number, v in _fields(shape) if number == 2]
    sizes = [dim.get(1, 0) for dim in dims]
    unknown_rank = dict(_fields(shape)).get(3)
    shape = None if unknown_rank else as_shape(sizes)
    return bytes(fields[1]).decode(), shape, DTYPES[dtype]


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


def varint(value):
    """A number of 0 or more as protobuf writes it."""
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])
