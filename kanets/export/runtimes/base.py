"""What the formats share: checked inputs, batches, errors, packages."""

import contextlib
import importlib

import numpy as np

SIGNATURE = "serving_default"


class Loaded:
    """A model that was loaded; see `load`.

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


def as_shape(sizes):
    """A tuple of sizes; names and negative numbers stand for open ones."""
    return tuple(
        # In protobuf's wire format -1 is 2**64 - 1.
        int(n) if isinstance(n, int | np.integer) and 0 <= n < 2**63 else None
        for n in sizes
    )


def import_package(module, package, extra):
    """Imports a runtime, or raises an ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package_of = f"{package} (of the extra kanets[{extra}])"
        raise missing_package(package, error, package_of) from error


def missing_package(package, reason, runtime=None):
    """The ImportError that says how to get a package."""
    return ImportError(
        f"This artifact runs with {runtime or package}: "
        f"`pip install {package}`. Received: {one_line(reason)}"
    )


@contextlib.contextmanager
def reading(path):
    """Makes a ValueError that names the artifact of what a runtime raises."""
    try:
        yield
    except Exception as error:  # the runtimes have classes of their own
        raise ValueError(
            f"The artifact cannot be loaded: {one_line(error)} "
            f"Received: artifact={str(path)!r}"
        ) from error


def one_line(error):
    """The message of an error in one line, never empty."""
    return " ".join(str(error).split()) or type(error).__name__
