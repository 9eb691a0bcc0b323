"""Exported bundles, and TensorFlow Serving's JSON in and out of them."""

import base64
import contextlib
import reprlib
import threading
from pathlib import Path

import numpy as np

from kanets.export.runtimes.finding import versions

SIGNATURE = "serving_default"
# What of a message of TensorFlow's is for who sent the request.
_SENTENCE = 300  # characters
_TRACES = "<stack traces unavailable>"  # what comes before tells of nodes


class RequestError(ValueError):
    """A request that cannot be answered, in words for who sent it."""


class Bundle:
    """The versions of a model, in a folder as TensorFlow Serving wants it.

    The highest version answers, a lower one where it is asked for by number;
    each is loaded once, at its first request or by `swap`.

    Args:
        folder: `Path` of the folder of versions.
    """

    def __init__(self, folder):
        self.folder = folder
        self.current = None  # number of the version that answers
        self.failed = {}  # why a version could not be loaded, by its number
        self._loaded = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one at a time, while others answer

    def versions(self):
        """Numbers of the versions in the folder, the highest first."""
        return sorted(self._paths(), reverse=True)

    def states(self):
        """How each version is, in the words of TensorFlow Serving.

        Returns:
            A dict from numbers, the highest first, to `(state, error)`:
            "AVAILABLE"; "START", loaded when it is asked for; or "END", which
            could not be loaded.
        """
        states = dict.fromkeys(self.versions(), ("START", ""))
        with self._lock:
            states |= {n: ("END", error) for n, error in self.failed.items()}
            states |= dict.fromkeys(self._loaded, ("AVAILABLE", ""))
        return dict(sorted(states.items(), reverse=True))

    def swap(self):
        """Lets the highest version that can be loaded answer.

        It is loaded first, so that requests meanwhile get the former's
        answers; what is no longer in the folder is forgotten.

        Returns:
            Whether it is another than before.
        """
        numbers = self.versions()
        number = next(filter(self._loads, numbers), None)
        with self._lock:
            for gone in self.failed.keys() - numbers:
                del self.failed[gone]
            if number is None:
                return False
            swapped, self.current = number != self.current, number
            self._loaded = {
                number: version
                for number, version in self._loaded.items()
                if number in numbers
            }
        return swapped

    def answer(self, request, number=None):
        """Answers the body of a `:predict` request.

        Args:
            request: dict with "instances" (a list: a value or a dict of
                inputs each) or "inputs" (a value or a dict of batches), and
                perhaps "signature_name". Bytes are {"b64": text}.
            number: of a version; None is the current one.

        Returns:
            {"predictions": [...]}, or {"outputs": ...} of "inputs".

        Raises:
            RequestError: a request that is not like that, or that the model
                refuses, with the reason.
            KeyError: there is no such version.
        """
        return self._version(number).answer(request)

    def metadata(self, number=None):
        """Inputs and outputs of the signatures of a version."""
        return self._version(number).metadata()

    def _paths(self):
        return versions(self.folder) if self.folder.is_dir() else {}

    def _loads(self, number):
        try:
            self._version(number)
        except Exception:  # `failed` says which
            return False
        return True

    def _version(self, number):
        with self._lock:
            number = self.current if number is None else number
            found = self._loaded.get(number)
        if found is not None:
            return found
        with self._loading:
            with self._lock:
                found = self._loaded.get(number)
            if found is None:
                path = self._paths()[number]
                try:
                    found = _Version(path)
                except Exception as error:
                    with self._lock:
                        self.failed[number] = _reason(error)
                    raise
                with self._lock:
                    self._loaded[number] = found
                    self.failed.pop(number, None)
        return found


class _Version:
    def __init__(self, path):
        import tensorflow as tf

        self._model = tf.saved_model.load(str(path))

    def answer(self, request):
        import tensorflow as tf

        if not isinstance(request, dict):
            raise RequestError("The body must be a JSON object.")
        name = request.get("signature_name") or SIGNATURE
        if not isinstance(name, str) or name not in self._model.signatures:
            raise RequestError(
                "signature_name must be one of "
                f"{sorted(self._model.signatures)}. Received: {name!r}"
            )
        signature = self._model.signatures[name]
        specs = signature.structured_input_signature[1]
        by_row = "instances" in request
        if by_row == ("inputs" in request):
            raise RequestError(
                'The body must have either "instances" or "inputs". '
                f"Received: {sorted(request)}"
            )
        if by_row:
            given = _columns(request["instances"], specs)
        else:
            given = _named(request["inputs"], specs)
        tensors = {n: _tensor(v, specs[n], n) for n, v in given.items()}
        try:
            outputs = signature(**tensors)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise RequestError(_reason(error)) from None
        outputs = {n: t.numpy() for n, t in outputs.items()}
        return _rows(outputs) if by_row else {"outputs": _alone(_json(outputs))}

    def metadata(self):
        return {
            name: {
                "inputs": {
                    part: _described(spec)
                    for part, spec in signature.structured_input_signature[
                        1
                    ].items()
                },
                "outputs": {
                    part: _described(spec)
                    for part, spec in signature.structured_outputs.items()
                },
            }
            for name, signature in self._model.signatures.items()
        }


def bundles(directory):
    """The `Bundle` of each folder of versions in a folder, by name."""
    found = {}
    for path in sorted(Path(directory).iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            bundle = Bundle(path)
            if bundle.versions():
                found[path.name] = bundle
    return found


def _columns(instances, specs):
    """Batches by the name of the input, of a list of instances."""
    if not isinstance(instances, list) or not instances:
        raise RequestError('"instances" must be a list with a value or more.')
    rows = [_named(instance, specs) for instance in instances]
    return {name: [row[name] for row in rows] for name in specs}


def _named(value, specs):
    """A dict with a value for each input; of one input it may stand alone."""
    plain = not isinstance(value, dict) or set(value) == {"b64"}
    if plain and len(specs) == 1:
        return dict.fromkeys(specs, value)
    if plain or set(value) != set(specs):
        received = "a value" if plain else sorted(value)
        raise RequestError(
            f"The inputs must be {sorted(specs)}, by name. Received: {received}"
        )
    return value


def _tensor(value, spec, name):
    import tensorflow as tf

    wanted = f"{name} must be {spec.dtype.name} of shape {spec.shape}" + (
        ', bytes as {"b64": text}.' if spec.dtype == tf.string else "."
    )
    try:
        if spec.dtype == tf.string:
            tensor = tf.constant(_bytes(value), tf.string)
        else:
            tensor = tf.constant(_numbers(value, spec.dtype.as_numpy_dtype))
    except RequestError:
        raise
    except (ValueError, TypeError, OverflowError):
        received = reprlib.repr(value)[:60]
        raise RequestError(f"{wanted} Received: {received}") from None
    if not spec.shape.is_compatible_with(tensor.shape):
        raise RequestError(f"{wanted} Received: shape {tensor.shape}")
    return tensor


def _bytes(value):
    """Texts and {"b64": text}, in lists or alone, as bytes."""
    if isinstance(value, list):
        return [_bytes(part) for part in value]
    if isinstance(value, dict):
        [(key, text)] = value.items()
        if key == "b64" and isinstance(text, str):
            return _decoded(text)
    if isinstance(value, str):
        return value.encode()
    raise TypeError


def _decoded(text):
    """The bytes of base 64, in lines or one, also without its padding."""
    letters = "".join(text.split())
    padding = "=" * (-len(letters) % 4)
    try:
        return base64.b64decode(letters + padding, validate=True)
    except ValueError:
        raise RequestError(
            f"What b64 names must be base64. Received: b64={text[:20]!r}"
        ) from None


def _numbers(value, dtype):
    """JSON's numbers, in lists or alone, as an array that holds just these."""
    cells = np.asarray(value, object)
    kinds = {bool} if dtype is np.bool_ else {int, float}
    if not kinds.issuperset(map(type, cells.flat)):
        raise TypeError
    with np.errstate(over="ignore"):
        array = cells.astype(dtype)
    is_whole = array.dtype.kind in "iu"
    if not np.all(array == cells if is_whole else np.isfinite(array)):
        raise ValueError
    return array


def _rows(outputs):
    """A dict an instance, or a value where there is one output."""
    parts = _json(outputs)
    names = list(parts)
    rows = zip(*parts.values(), strict=True)
    return {
        "predictions": [
            _alone(dict(zip(names, row, strict=True))) for row in rows
        ]
    }


def _json(outputs):
    return {
        name: _plain(array.tolist(), name) for name, array in outputs.items()
    }


def _plain(value, name):
    """Bytes as text; in base 64 if they are none, or by the output's name."""
    if isinstance(value, list):
        return [_plain(part, name) for part in value]
    if isinstance(value, bytes):
        if not name.endswith("_bytes"):
            with contextlib.suppress(UnicodeDecodeError):
                return value.decode()
        return {"b64": base64.b64encode(value).decode()}
    return value


def _alone(named):
    return next(iter(named.values())) if len(named) == 1 else named


def _described(spec):
    return {"dtype": spec.dtype.name, "shape": list(spec.shape)}


def _reason(error):
    """The first sentence of an error of TensorFlow's, without its nodes."""
    text = getattr(error, "message", None) or str(error)
    text = text.split("\n\t [[")[0].rpartition(_TRACES)[2]
    text = text.strip().split("\n")[0].strip()
    return text[:_SENTENCE] or type(error).__name__
