"""Exported bundles, and TensorFlow Serving's JSON in and out of them."""

import base64
import binascii
import threading
from pathlib import Path

import numpy as np

from kanets.export.runtimes.finding import versions

SIGNATURE = "serving_default"
# What of a message of TensorFlow's is for who sent the request.
_SENTENCE = 300  # characters


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
        self._loaded = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one at a time, while others answer

    def versions(self):
        """Numbers of the versions in the folder, the highest first."""
        return sorted(versions(self.folder), reverse=True)

    def swap(self):
        """Lets the highest version answer; returns whether it is another.

        It is loaded first, so that requests meanwhile get the former's
        answers; what is no longer in the folder is forgotten.
        """
        numbers = self.versions()
        if not numbers:
            return False
        self._version(numbers[0])
        with self._lock:
            swapped, self.current = numbers[0] != self.current, numbers[0]
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
                found = _Version(versions(self.folder)[number])
                with self._lock:
                    self._loaded[number] = found
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
        if name not in self._model.signatures:
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

    try:
        if spec.dtype == tf.string:
            return tf.constant(_bytes(value), tf.string)
        return tf.constant(np.asarray(value, spec.dtype.as_numpy_dtype))
    except (ValueError, TypeError, OverflowError, binascii.Error):
        raise RequestError(
            f"{name} must be {spec.dtype.name} of shape {spec.shape}"
            + (', bytes as {"b64": text}.' if spec.dtype == tf.string else ".")
        ) from None


def _bytes(value):
    """Texts and {"b64": text}, in lists or alone, as bytes."""
    if isinstance(value, list):
        return [_bytes(part) for part in value]
    if isinstance(value, dict):
        [(key, text)] = value.items()
        if key == "b64":
            return base64.b64decode(text, validate=True)
    if isinstance(value, str):
        return value.encode()
    raise TypeError


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
    """Bytes as text, or in base 64 where the output's name ends so."""
    if isinstance(value, list):
        return [_plain(part, name) for part in value]
    if isinstance(value, bytes):
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode("utf-8", "replace")
    return value


def _alone(named):
    return next(iter(named.values())) if len(named) == 1 else named


def _described(spec):
    return {"dtype": spec.dtype.name, "shape": list(spec.shape)}


def _reason(error):
    """The first sentence of an error of TensorFlow's, without its nodes."""
    text = getattr(error, "message", None) or str(error)
    text = text.split("\n\t [[")[0].split("\n")[0].strip()
    return text[:_SENTENCE] or type(error).__name__
