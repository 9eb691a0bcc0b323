"""The Inception graph of 2015-12-05, behind published FID, KID and IS.

It is not the InceptionV3 of keras.applications or torchvision: average pools
divide by the cells inside the map, the pool of the last block is a maximum,
and there are 1,008 outputs. Names are those of the PyTorch port that
pytorch-fid and torch-fidelity share.

Letters: B batch.
"""

import contextlib

import keras
from keras import layers

from kanets.layers.batch_normalization import BatchNormalization

# Filters, height and width of each convolution; blocks are branches of these.
_STEM = {
    "Conv2d_1a_3x3": (32, 3, 3),
    "Conv2d_2a_3x3": (32, 3, 3),
    "Conv2d_2b_3x3": (64, 3, 3),
    "Conv2d_3b_1x1": (80, 1, 1),
    "Conv2d_4a_3x3": (192, 3, 3),
}
_SPLIT = ((384, 1, 3), (384, 3, 1))  # two side by side


def _block_5(pool):
    return {
        "branch1x1": [(64, 1, 1)],
        "branch5x5": [(48, 1, 1), (64, 5, 5)],
        "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
        "branch_pool": [(pool, 1, 1)],
    }


def _block_6(width):
    across, down = (width, 1, 7), (width, 7, 1)
    first = (width, 1, 1)
    return {
        "branch1x1": [(192, 1, 1)],
        "branch7x7": [first, across, (192, 7, 1)],
        "branch7x7dbl": [first, down, across, down, (192, 1, 7)],
        "branch_pool": [(192, 1, 1)],
    }


_BLOCK_7 = {
    "branch1x1": [(320, 1, 1)],
    "branch3x3": [(384, 1, 1), _SPLIT],
    "branch3x3dbl": [(448, 1, 1), (384, 3, 3), _SPLIT],
    "branch_pool": [(192, 1, 1)],
}
# Those without a branch_pool halve the map.
_BLOCKS = {
    "Mixed_5b": _block_5(32),
    "Mixed_5c": _block_5(64),
    "Mixed_5d": _block_5(64),
    "Mixed_6a": {
        "branch3x3": [(384, 3, 3)],
        "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
    },
    "Mixed_6b": _block_6(128),
    "Mixed_6c": _block_6(160),
    "Mixed_6d": _block_6(160),
    "Mixed_6e": _block_6(192),
    "Mixed_7a": {
        "branch3x3": [(192, 1, 1), (320, 3, 3)],
        "branch7x7x3": [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)],
    },
    "Mixed_7b": _BLOCK_7,
    "Mixed_7c": _BLOCK_7,
}


def InceptionV3_2015():
    """The Inception graph of 2015-12-05 as a Keras model.

    In float32 under any policy, with kernels of zeros: the weights of a file
    come with `load_inception_weights`. Pictures become its input by
    `ylg.metrics.resize` and `ylg.metrics.normalize`.

    Call arguments:
        inputs: float32 (B, 299, 299, 3), about -1 to 1.

    Returns:
        A functional model. It returns a dict of float32 arrays: "64", "192",
        "768" and "2048", features (B, that many), means over the map after
        each max pool, Mixed_6e and Mixed_7c; "logits" (B, 1008) and
        "logits_unbiased", these without the bias, as the Inception Score
        takes them.

    Cost: 5.7e9 multiply-adds a picture, 23.9 million parameters.

    References: Szegedy et al., "Rethinking the Inception Architecture",
    CVPR 2016; the graph: https://github.com/bioinf-jku/TTUR.
    """
    with float32_policy():
        inputs = keras.Input((299, 299, 3))
        maps = dict(_maps(inputs))
        outputs = {
            size: layers.GlobalAveragePooling2D(
                data_format="channels_last", name=f"features_{size}"
            )(maps[after])
            for size, after in (
                ("64", "MaxPool_1"),
                ("192", "MaxPool_2"),
                ("768", "Mixed_6e"),
                ("2048", "Mixed_7c"),
            )
        }
        features = outputs["2048"]
        classify = layers.Dense(1008, kernel_initializer="zeros", name="fc")
        logits = classify(features)
        bias = classify(layers.Rescaling(0.0)(features))
        outputs["logits_unbiased"] = layers.Subtract()([logits, bias])
        outputs["logits"] = logits
        return keras.Model(inputs, outputs, name="InceptionV3_2015")


def convolution_names():
    """Names of the convolutions, in the order of the graph."""
    yield from _STEM
    for block, branches in _BLOCKS.items():
        for branch, steps in branches.items():
            for names in _step_names(f"{block}.{branch}", steps):
                yield from names


def layer_name(convolution, part):
    """That of its "conv" or "bn"; PyTorch allows no dots in names."""
    return f"{convolution}_{part}".replace(".", "_")


@contextlib.contextmanager
def float32_policy():
    """Layers made inside are in float32, whatever the policy is."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def _maps(x):
    """Name and map of the pools and blocks, in order."""
    for name, shape in _STEM.items():
        strides = 2 if name == "Conv2d_1a_3x3" else 1
        padding = "same" if name == "Conv2d_2b_3x3" else "valid"
        x = _convolution(x, name, shape, strides, padding)
        if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
            x = _pool(x, strides=2, padding="valid")
            yield f"MaxPool_{1 if name == 'Conv2d_2b_3x3' else 2}", x
    for name, branches in _BLOCKS.items():
        x = _block(x, name, branches)
        yield name, x


def _block(x, name, branches):
    halves = "branch_pool" not in branches
    ends = [_pool(x, strides=2, padding="valid")] if halves else []
    outputs = []
    for branch, steps in branches.items():
        y = x
        if branch == "branch_pool":
            y = _pool(x, average=name != "Mixed_7c")
        names = _step_names(f"{name}.{branch}", steps)
        for i, (labels, step) in enumerate(zip(names, steps, strict=True)):
            last = halves and i == len(steps) - 1
            arguments = (2, "valid") if last else (1, "same")
            shapes = step if len(labels) > 1 else [step]
            y = [
                _convolution(y, label, shape, *arguments)
                for label, shape in zip(labels, shapes, strict=True)
            ]
            y = y[0] if len(y) == 1 else layers.Concatenate()(y)
        outputs.append(y)
    return layers.Concatenate(name=name)(outputs + ends)


def _step_names(branch, steps):
    """The names of each step's convolutions, a list or two of them."""
    if len(steps) == 1:
        return [[branch]]
    letters = ["ab" if step is _SPLIT else ("",) for step in steps]
    return [
        [f"{branch}_{i}{letter}" for letter in step]
        for i, step in enumerate(letters, 1)
    ]


def _convolution(x, name, shape, strides, padding):
    filters, *kernel = shape
    x = layers.Conv2D(
        filters,
        kernel,
        strides,
        padding,
        data_format="channels_last",
        use_bias=False,
        kernel_initializer="zeros",
        name=layer_name(name, "conv"),
    )(x)
    x = BatchNormalization(epsilon=1e-3, name=layer_name(name, "bn"))(x)
    return layers.ReLU()(x)


def _pool(x, strides=1, padding="same", average=False):
    kind = layers.AveragePooling2D if average else layers.MaxPooling2D
    return kind(3, strides, padding, data_format="channels_last")(x)
