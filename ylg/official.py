"""Reads the checkpoints of YLG's authors into our networks.

They were written by TensorFlow 1 from the code of Daras et al., "Your Local
GAN" (CVPR 2020). Only arrays are read, by the names of their variables.
TensorFlow is imported when a checkpoint is read, whatever the backend.
"""

from pathlib import Path

import numpy as np

from ylg.gan.discriminator_network import discriminator
from ylg.gan.generator_network import generator

IMAGE_SIZE = 128
NUM_HEADS = 8
# Last parts of names that belong to the optimizer (Adam), not to the network.
OPTIMIZER_STATE = {"Adam", "Adam_1", "beta1_power", "beta2_power"}
ATTENTION_MAPS = {
    "theta": "sn_conv_theta",
    "phi": "sn_conv_phi",
    "g": "sn_conv_g",
    "out": "sn_conv_attn",
}


def load_generator(path):
    """The generator of a checkpoint, as `ylg.gan.generator(official=True)`.

    Args:
        path: prefix of a checkpoint in TensorFlow's V2 format, such as
            ".../model.ckpt-900000", or a folder: then the last one in it.

    Returns:
        A Keras model `[z, labels]` -> images; width, number of classes and
        latent size are read off the shapes.

    Raises:
        ValueError: there is no checkpoint at `path`, or its variables under
            "Generator/" are not exactly those of the network: what is
            missing, unexpected or of another shape is listed. State of Adam
            and `global_step` are passed over.
    """
    scope = "Generator/generator/"
    arrays = _Checkpoint(path, "Generator/")
    latent_size, _ = arrays.shape(scope + "g_snh0/dense/kernel", 2)
    classes, *_ = arrays.shape(scope + "g_block1/cbn_0/gamma", 4)
    last = scope + "g_snconv_last/g_snconv_last/kernel"
    model = generator(
        IMAGE_SIZE,
        width=arrays.shape(last, 4)[2],
        num_classes=classes,
        latent_size=latent_size,
        num_heads=NUM_HEADS,
        official=True,
        kernel_initializer="zeros",  # nothing of it remains
    )
    _linear(arrays, model, "dense", scope + "g_snh0/dense/")
    for index in range(1, 6):
        block, official = f"block{index}", f"{scope}g_block{index}/"
        for ours, name in (
            ("conv1", "snconv1"),
            ("conv2", "snconv2"),
            ("shortcut", "snconv3"),
        ):
            _linear(
                arrays, model, f"{block}_{ours}", f"{official}{name}/{name}/"
            )
        for ours, name in (("norm1", "cbn_0"), ("norm2", "cbn_1")):
            layer = model.get_layer(f"{block}_{ours}")
            _norm(arrays, layer, f"{official}{name}/", classes)
    _attention(arrays, model, scope + "g_ops/")
    _norm(arrays, model.get_layer("norm"), scope + "g_bn/", 1)
    _linear(arrays, model, "conv", last.removesuffix("kernel"))
    arrays.assign_to(model)
    return model


def load_discriminator(path):
    """The discriminator of a checkpoint, as `ylg.gan.discriminator`.

    Args:
        path: as in `load_generator`.

    Returns:
        A Keras model `[images, labels]` -> logits, made with
        `official=True`; width and number of classes are read off the shapes.

    Raises:
        ValueError: as in `load_generator`, for variables under
            "Discriminator/".
    """
    scope = "Discriminator/discriminator/"
    arrays = _Checkpoint(path, "Discriminator/")
    first = scope + "d_optimized_block1/sn_conv1/sn_conv1/kernel"
    table = scope + "d_embedding/embedding_map"
    classes, _ = arrays.shape(table, 2)
    model = discriminator(
        IMAGE_SIZE,
        width=arrays.shape(first, 4)[3],
        num_classes=classes,
        num_heads=NUM_HEADS,
        official=True,
        kernel_initializer="zeros",  # nothing of it remains
    )
    for index in range(1, 7):
        kind = "d_optimized_block" if index == 1 else "d_block"
        maps = {"conv1": "sn_conv1", "conv2": "sn_conv2"}
        if index < 6:
            maps["shortcut"] = "sn_conv3"
        for ours, name in maps.items():
            official = f"{scope}{kind}{index}/{name}/{name}/"
            _linear(arrays, model, f"block{index}_{ours}", official)
    _attention(arrays, model, scope + "d_ops/")
    _linear(arrays, model, "dense", scope + "d_sn_linear/dense/")
    layer = model.get_layer("embedding")
    arrays.give(layer.layer.embeddings, table)
    arrays.give_vector(layer, scope + "d_embedding/")
    arrays.assign_to(model)
    return model


class _Checkpoint:
    """Arrays of one scope, and which of our variables each is for."""

    def __init__(self, path, scope):
        import tensorflow as tf

        self.prefix = _prefix(path)
        self._reader = tf.train.load_checkpoint(self.prefix)
        self.shapes = {
            name: tuple(shape)
            for name, shape in self._reader.get_variable_to_shape_map().items()
            if name.startswith(scope)
            and name.rpartition("/")[2] not in OPTIMIZER_STATE
        }
        self._wanted = {}

    def shape(self, name, rank):
        """Shape of a variable that the network is made from."""
        if len(self.shapes.get(name, ())) != rank:
            found = self.shapes.get(name, "no such variable")
            raise ValueError(
                f"The checkpoint must have a variable {name} of rank {rank}. "
                f"Received: {found} in {self.prefix}"
            )
        return self.shapes[name]

    def give(self, variable, name, shape=None, rearrange=None):
        """Notes that `variable` is filled from the array `name`.

        Args:
            shape: of the array, where it is not the variable's.
            rearrange: function of the array, applied first.
        """
        shape = tuple(variable.shape) if shape is None else shape
        self._wanted[name] = (variable, rearrange, shape)

    def give_vector(self, layer, scope, kernel="", rearrange=None):
        """The same for u: the kernel's full name is part of its name."""
        vector = layer.left_singular_vector
        name = f"{scope}{kernel}/" if kernel else scope
        name += "spectral_normalize/spectral_norm/spectral_norm_u"
        self.give(vector, name, (*vector.shape, 1), rearrange)

    def assign_to(self, model):
        """Fills every weight of `model`, or raises and fills none."""
        filled = {id(variable) for variable, _, _ in self._wanted.values()}
        problems = [
            f"not filled: {variable.path}"
            for variable in model.weights
            if id(variable) not in filled
        ]
        for name, (_, _, shape) in self._wanted.items():
            if name not in self.shapes:
                problems.append(f"missing: {name} {shape}")
            elif self.shapes[name] != shape:
                problems.append(
                    f"of another shape: {name} {self.shapes[name]}, not {shape}"
                )
        for name in sorted(set(self.shapes) - set(self._wanted)):
            problems.append(f"unexpected: {name} {self.shapes[name]}")
        if problems:
            raise ValueError(
                "The checkpoint must hold exactly the variables of the "
                f"network. Received: {self.prefix} with\n" + "\n".join(problems)
            )
        for name, (variable, rearrange, _) in self._wanted.items():
            array = np.asarray(self._reader.get_tensor(name))
            if rearrange is not None:
                array = rearrange(array)
            variable.assign(array.reshape(variable.shape))


def _linear(arrays, model, ours, official):
    """Kernel, bias and singular vector of one normalised map."""
    layer, kernel = model.get_layer(ours), official + "kernel"
    arrays.give(layer.layer.kernel, kernel)
    arrays.give(layer.layer.bias, official + "bias")
    arrays.give_vector(layer, official, kernel)


def _norm(arrays, layer, official, classes):
    channels = layer.moving_mean.shape[0]
    for name in ("gamma", "beta"):
        table = (classes, 1, 1, channels)
        arrays.give(getattr(layer, name), official + name, table)
    for name in ("moving_mean", "moving_variance"):
        arrays.give(getattr(layer, name), official + name)


def _attention(arrays, model, official):
    layer = model.get_layer("attention")
    arrays.give(layer.sigma, official + "sigma_ratio")
    for ours, name in ATTENTION_MAPS.items():
        normalized = getattr(layer, ours)
        kernel = f"{official}{name}/weights"
        rearrange = _heads_first if ours == "out" else None
        arrays.give(normalized.layer.kernel, kernel, rearrange=rearrange)
        arrays.give_vector(normalized, f"{official}{name}/", kernel, rearrange)


def _heads_first(array):
    """Rows from the official order of merged channels to ours.

    There channel d N + head of the heads' outputs, here head D + d.
    """
    *kernel, rows, columns = array.shape
    array = array.reshape(*kernel, rows // NUM_HEADS, NUM_HEADS, columns)
    return np.swapaxes(array, -3, -2).reshape(*kernel, rows, columns)


def _prefix(path):
    """The prefix itself, or the one with the largest step in a folder."""
    path = Path(path)
    if path.is_dir():
        found = [p.with_suffix("") for p in path.glob("*.index")]
        if not found:
            raise ValueError(
                "The folder must hold a checkpoint, with a file "
                f"<name>.index. Received: path={str(path)!r}"
            )
        return str(max(found, key=_step))
    if not path.with_name(path.name + ".index").is_file():
        raise ValueError(
            "path must be a folder or the prefix of a checkpoint, without "
            f".index at its end. Received: path={str(path)!r}"
        )
    return str(path)


def _step(path):
    step = path.name.rpartition("-")[2]
    return (int(step) if step.isdigit() else -1, path.name)
