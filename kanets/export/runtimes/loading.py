"""One way to load an artifact of any format."""

from .base import SIGNATURE
from .finding import find
from .litert import LiteRT
from .onnx import ONNX
from .openvino import OpenVINO
from .savedmodel import SavedModel

_FORMATS = {"litert": LiteRT, "onnx": ONNX, "openvino": OpenVINO}


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
    # The rule of `kanets.checks`, which cannot be imported here.
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(
            "`threads` must be a positive integer. "
            f"Received: threads={threads!r}"
        )
    format, path = find(artifact)
    if format == "savedmodel":
        signature = SIGNATURE if signature is None else signature
        return SavedModel(path, threads, signature)
    if signature is not None:
        raise ValueError(
            "Only SavedModels have a choice of signatures. "
            f"Received: signature={signature!r}, artifact={str(path)!r}"
        )
    return _FORMATS[format](path, threads)
