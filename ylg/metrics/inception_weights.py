"""Weights of the Inception graph of 2015, of a file that a user has.

`pt_inception-2015-12-05-6726825d.pth` (of pytorch-fid; torch-fidelity's is
the same) and `classify_image_graph_def.pb` (of inception-2015-12-05.tgz) hold
the same numbers. Nothing is downloaded.
"""

import collections
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kanets.checks import nearest
from kanets.files import sha256
from ylg.metrics.inception_graph import convolution_names, layer_name
from ylg.metrics.torch_files import load_torch_file

SUFFIXES = (".pth", ".pb")
# The port's names of a normalisation's weights, the graph's and Keras's.
_NORMALIZATION = (
    ("weight", "gamma", "gamma"),
    ("bias", "beta", "beta"),
    ("running_mean", "moving_mean", "moving_mean"),
    ("running_var", "moving_variance", "moving_variance"),
)


def load_inception_weights(model, weights):
    """Sets the weights of `ylg.metrics.InceptionV3_2015()`.

    Args:
        model: that model.
        weights: a `.pth` file (a state dict of PyTorch's, which is not
            needed), a `.pb` file (the frozen graph, read by TensorFlow), or a
            mapping from the names in the `.pth` file to arrays in its layout:
            kernels of convolutions [out, in, height, width], `fc.weight`
            [1008, 2048]. `num_batches_tracked` is left out.

    Returns:
        str, the SHA-256 that a figure names the weights by: that of the file,
        or that of the arrays of a mapping.

    Raises:
        ValueError: another kind of file; names that are missing or unknown,
            arrays of other shapes.
        OSError: no file there.
    """
    named = isinstance(weights, Mapping)
    arrays = {
        name: value
        for name, value in (weights if named else read_weights(weights)).items()
        if not name.endswith(".num_batches_tracked")
    }
    expected = dict(_slots(model))
    missing = [name for name in expected if name not in arrays]
    unknown = [name for name in arrays if name not in expected]
    if missing or unknown:
        raise ValueError(
            "The weights must be those of the Inception graph of 2015: "
            f"{len(missing)} are missing, {len(unknown)} are unknown"
            f"{nearest(unknown[:1], expected)}. "
            f"Received: {', '.join(repr(n) for n in (missing + unknown)[:3])}"
        )
    values = {}
    for name, (variable, axes) in expected.items():
        value = np.asarray(arrays[name], "float32")
        shape = tuple(variable.shape[axes.index(i)] for i in range(len(axes)))
        if value.shape != shape:
            raise ValueError(
                f"{name} must be of shape {shape}. "
                f"Received: {name}.shape={value.shape}"
            )
        values[name] = value.transpose(axes)
    for name, (variable, _) in expected.items():
        variable.assign(values[name])
    return _digest(arrays) if named else sha256(weights)


def read_weights(path):
    """The arrays of a file, by the names of the `.pth` file, in its layout.

    Args:
        path: `.pth` or `.pb` file.

    Returns:
        Dict from names to arrays.

    Raises:
        ValueError: another kind of file.
        OSError: no file there.
    """
    match Path(path).suffix:
        case ".pth":
            return load_torch_file(path)
        case ".pb":
            return _read_graph(path)
    raise ValueError(
        "The weights of the Inception graph of 2015 must be a file of "
        f"{' or '.join(SUFFIXES)}. Received: {str(path)!r}"
    )


def _slots(model):
    """Name, and the variable with the order of its axes in the file."""
    for name in convolution_names():
        yield (
            f"{name}.conv.weight",
            (model.get_layer(layer_name(name, "conv")).kernel, (2, 3, 1, 0)),
        )
        normalization = model.get_layer(layer_name(name, "bn"))
        for theirs, _, ours in _NORMALIZATION:
            yield f"{name}.bn.{theirs}", (getattr(normalization, ours), (0,))
    classify = model.get_layer("fc")
    yield "fc.weight", (classify.kernel, (1, 0))
    yield "fc.bias", (classify.bias, (0,))


def _digest(arrays):
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()


def _read_graph(path):
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(Path(path).read_bytes())
        constants = {
            node.name: tf.make_ndarray(node.attr["value"].tensor)
            for node in graph.node
            if node.op == "Const"
        }
    except OSError:
        raise
    except Exception as error:  # of protobuf, whose classes differ
        raise ValueError(
            "A .pb file must be a frozen TensorFlow graph. "
            f"Received: {str(path)!r} ({error})"
        ) from error
    arrays = {}
    for name, scope in graph_scopes(convolution_names()).items():
        arrays[f"{name}.conv.weight"] = constants.get(f"{scope}/conv2d_params")
        for theirs, kept, _ in _NORMALIZATION:
            value = constants.get(f"{scope}/batchnorm/{kept}")
            arrays[f"{name}.bn.{theirs}"] = value
    arrays["fc.weight"] = constants.get("softmax/weights")
    arrays["fc.bias"] = constants.get("softmax/biases")
    return {
        name: np.transpose(value, {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim))
        for name, value in arrays.items()
        if value is not None
    }


def graph_scopes(names):
    """TensorFlow's scopes of convolutions, by their names in PyTorch's order.

    TensorFlow numbered what has the same name in a scope: blocks are "mixed",
    "mixed_1", ...; in a block, a branch of one convolution is "conv", and the
    others are "tower", "tower_1", ...; what splits at the end is in "mixed".
    """
    taken, scopes = collections.Counter(), {}

    def numbered(name):
        taken[name] += 1
        return f"{name}_{taken[name] - 1}" if taken[name] > 1 else name

    found = {}
    for name in names:
        block, _, step = name.partition(".")
        if not step:
            found[name] = numbered("conv")
            continue
        if block not in scopes:
            scopes[block] = numbered("mixed")
        branch, _, number = step.rpartition("_")
        if number == "pool":
            branch, number = step, "1"
        scope = scopes[block]
        if branch:
            key = block, branch
            if key not in scopes:
                scopes[key] = numbered(f"{scope}/tower")
            scope = scopes[key] + ("/mixed" if number[-1] in "ab" else "")
        found[name] = numbered(f"{scope}/conv")
    return found
