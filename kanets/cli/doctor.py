"""`kanets doctor`."""

import importlib.metadata
import itertools
import os
import platform

from kanets.cli.running import command

# What commands ask for besides what the package needs, and how to get it.
EXTRAS = {
    "jax": "jax",
    "torch": "torch",
    "ai-edge-litert": "litert",
    "tf2onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "huggingface_hub": "hub",
    "pillow-heif": "heic",
    "opencv-python-headless": "video",
    "pyarrow": "parquet",
    "apache-beam": "beam",
    "matplotlib": "viz",
    "gradio": "app",
    "kserve": "serve",
    "wandb": "wandb",
}
TOLERANCE = 1e-5


@command("doctor --json")
def doctor():
    """What is installed, where it computes, and whether that is right."""
    for name, value in itertools.chain(_versions(), _state()):
        yield {name: value}, f"{name:24}{value}"


def _state():
    import keras

    from kanets.attention.implementations import why_no_kernel
    from kanets.distribute.devices import accelerators

    yield "backend", keras.backend.backend()
    yield "devices", ", ".join(accelerators() or ["cpu:0"])
    yield "kernels", why_no_kernel() or "can run"
    yield "zoo", _zoo()
    yield "self-test", _self_test()


def _versions():
    yield "python", platform.python_version()
    yield "machine", f"{platform.platform()}, {os.cpu_count()} cores"
    for name in ("kanets", "keras", "tensorflow", "numpy"):
        yield name, _version(name) or "missing"
    for name, extra in EXTRAS.items():
        missing = f'missing: pip install "kanets[{extra}]"'
        yield name, _version(name) or missing


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _zoo():
    from kanets import zoo

    names = [entry.name for entry in zoo.list_models()]
    return f"{len(names)} entries in {zoo.models_directory()}"


def _self_test():
    """Kronecker attention on this backend beside its formula in NumPy."""
    import keras
    import numpy as np

    from kanets import attention

    x = np.random.default_rng(0).normal(size=(2, 5, 7, 4))
    tokens = np.concatenate([x.mean(2), x.mean(1)], axis=1)
    scores = np.exp(tokens @ tokens.swapaxes(1, 2))
    means = scores / scores.sum(-1, keepdims=True) @ tokens
    expected = means[:, :5, None] + means[:, None, 5:]
    found = attention.kao_qkv(keras.ops.convert_to_tensor(x, "float32"))
    error = np.abs(keras.ops.convert_to_numpy(found) - expected).max()
    if error > TOLERANCE:
        raise ArithmeticError(
            "Kronecker attention must be equal to its formula to "
            f"{TOLERANCE}. Received: a difference of {error:.2g}"
        )
    return f"passed, Kronecker attention within {error:.1g} of its formula"
