"""Repositories of timm's as `save_for_hf` makes them, with weights made up.

Names and shapes are timm's, values as tests/golden/README.md says.
"""

import shutil
import zlib

import numpy as np
import safetensors.numpy


def value(name, shape):
    """A weight's numbers, from its name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    suffix = name.rpartition(".")[2]
    if suffix == "num_batches_tracked":
        return np.array(1, "int64")
    if suffix in ("running_var", "gamma"):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    if suffix == "weight" and len(shape) == 1:
        return rng.uniform(0.5, 1, shape).astype("float32")
    scale = 0.1 if len(shape) == 1 else np.sqrt(1.5 / np.prod(shape[1:]))
    return (scale * rng.standard_normal(shape)).astype("float32")


def write(folder, names, shapes, config=None):
    """A folder of `model.safetensors` and maybe a `config.json`.

    Args:
        folder: path, made.
        names: array of str.
        shapes: of these, an array (N, 4) with zeros for axes that are none.
        config: path of a `config.json`, or None.

    Returns:
        The path of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        str(name): value(str(name), tuple(shape[shape > 0]))
        for name, shape in zip(names, shapes, strict=True)
    }
    path = folder / "model.safetensors"
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})
    if config is not None:
        shutil.copy(config, folder / "config.json")
    return path


def inputs(name, size):
    """Scaled pictures (2, H, W, 3) for a net of a name."""
    key = f"{name}/{size[0]}x{size[1]}"
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    return rng.standard_normal((2, *size, 3)).astype("float32")
