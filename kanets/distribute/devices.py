"""The devices of this machine, on any backend."""

import contextlib
import contextvars

import keras

_chosen = contextvars.ContextVar("device", default=None)


def accelerators():
    """Names of the GPUs and TPUs to compute on, maybe none."""
    if keras.backend.backend() == "torch":  # where Keras lists none
        import torch

        there = [f"gpu:{i}" for i in range(torch.cuda.device_count())]
    else:
        there = [
            name
            for name in keras.distribution.list_devices()
            if not name.lower().startswith("cpu")
        ]
    chosen = _chosen.get()
    return there if chosen is None else [x for x in there if x == chosen]


@contextlib.contextmanager
def on_device(name):
    """Computes on one device what this thread begins inside.

    Args:
        name: str, as "cpu", "gpu" or "gpu:1"; without a number it is the
            first of its kind.

    Raises:
        ValueError: the backend has no such device here.
    """
    there = ["cpu:0"]
    if keras.backend.backend() != "torch":
        there = keras.distribution.list_devices("cpu")
    there = [*there, *accelerators()]
    device = name.lower() if ":" in name else f"{name.lower()}:0"
    if device not in there:
        raise ValueError(
            f"`device` must be one of {', '.join(there)}. Received: {name!r}"
        )
    token = _chosen.set(device)
    try:
        with keras.device(device):
            yield
    finally:
        _chosen.reset(token)
