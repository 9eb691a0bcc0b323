"""Small nets with all that is folded, rounded, opened or left alone."""

import keras
from keras import layers

import kanets
from kanets.layers import BatchNormalization

SIZE = (12, 10, 3)


def normed(x, name, layer=BatchNormalization, **arguments):
    return layer(name=f"{name}_norm", **arguments)(x)


def blocks():
    """Folded layers, with and without bias, activations and residuals."""
    x = inputs = keras.Input(SIZE, name="pictures")
    x = layers.Rescaling(1 / 127.5, -1.0, name="scale")(x)
    x = layers.Conv2D(8, 3, 2, "same", use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0, name="stem_relu")(normed(x, "stem"))
    kept = x
    x = layers.DepthwiseConv2D(3, padding="same", name="mix")(x)
    x = layers.Activation("silu", name="mix_silu")(normed(x, "mix"))
    x = layers.Conv2D(8, 1, name="project")(x)
    x = normed(x, "project", layers.BatchNormalization, scale=False)
    x = layers.Add(name="add")([x, kept])
    x = layers.Activation("relu", name="add_relu")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="gate")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    x = normed(layers.MaxPooling2D(2, name="max")(x), "alone")
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Dense(6, name="dense")(layers.Flatten(name="flat")(x))
    x = normed(x, "dense", layers.BatchNormalization)
    x = layers.Dropout(0.2, name="drop")(layers.ReLU(name="relu")(x))
    x = layers.Dense(4, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x, name="blocks")


def nested():
    """The same convolution twice, in a nested model and beside it."""
    inner_inputs = keras.Input((None, None, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = layers.ReLU(name="relu")(normed(shared(inner_inputs), "inner"))
    inner = keras.Model(inner_inputs, x, name="inner")
    inputs = keras.Input(SIZE)
    x = layers.Conv2D(4, 3, name="first")(inputs)
    x = keras.ops.concatenate([inner(x, training=False), shared(x)], axis=-1)
    return keras.Model(inputs, {"maps": x, "first": layers.ReLU()(x)})


def kanet(attention="kao_qkv", size=32):
    return kanets.KANet(
        (size, size, 3),
        0.25,
        classes=4,
        strides=(2, 2, 1, 2, 1),
        attention=attention,
    )


def module():
    """One module of a KANet and a head: little, and all of its kinds."""
    x = inputs = keras.Input((8, 8, 3), name="pictures")
    x = layers.Rescaling(1 / 127.5, -1.0, name="scale")(x)
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    x = kanets.layers.AttnSkipModule(8, 3, name="module")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(4, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x, name="one_module")
