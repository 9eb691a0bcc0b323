"""Small nets, each difficult to copy in another way."""

import keras
from keras import layers, ops

SIZE = (12, 10, 3)


def conv(filters, name, strides=1, **arguments):
    return layers.Conv2D(
        filters, 3, strides, "same", name=name, activation="relu", **arguments
    )


def norm(name):
    return layers.BatchNormalization(name=name)


def plain():
    """Two strides, a residual, operations of keras.ops, Dropout."""
    x = inputs = keras.Input(SIZE, name="pictures")
    x = norm("n1")(conv(8, "c1")(x / 2.0))
    x = conv(8, "c2", 2)(x)
    x = layers.Add(name="sum")([x, ops.relu(norm("n2")(conv(8, "c3")(x)))])
    x = conv(16, "c4", 2)(layers.Dropout(0.3, name="drop")(x))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(x), name="plain")


def sequential():
    return keras.Sequential(
        [keras.Input(SIZE), conv(8, "c1"), norm("n"), conv(8, "c2", 2)]
    )


def with_nested_models():
    """Models in a model, one of them called twice, one of them sequential."""
    x = inner_inputs = keras.Input((None, None, 8))
    x = layers.Add(name="sum")([x, norm("n")(conv(8, "c")(x))])
    inner = keras.Model(inner_inputs, x, name="inner")
    tail = keras.Sequential([conv(8, "c"), norm("n")], name="tail")
    middle_inputs = keras.Input((None, None, 8))
    middle = keras.Model(
        middle_inputs, tail(inner(middle_inputs)), name="middle"
    )
    inputs = keras.Input(SIZE)
    x = conv(8, "first")(inputs)
    return keras.Model(inputs, middle(ops.tanh(middle(x))))


def with_shared_layers():
    inputs = {n: keras.Input(SIZE, name=n) for n in ("left", "right")}
    shared, after = conv(8, "shared"), conv(8, "after")
    left, right = shared(inputs["left"]), shared(inputs["right"])
    both = layers.Concatenate(name="both")([norm("n")(left), after(right)])
    return keras.Model(inputs, {"maps": both, "left": left})


def with_functions():
    x = inputs = keras.Input(SIZE)
    x = conv(8, "c")(x)[:, 1:, :, :4]
    x = layers.Lambda(lambda t: ops.tanh(t) * 2, name="lambda")(x)
    x = ops.concatenate([x, ops.relu(x)], axis=-1)
    return keras.Model(inputs, [x, ops.mean(x, axis=(1, 2))])


@keras.saving.register_keras_serializable(package="tests")
class Body(keras.Model):
    """A functional model of a class of its own, as KerasHub's are."""

    def __init__(self, width, **kwargs):
        inputs = keras.Input(SIZE)
        x = norm("n")(conv(width, "c")(inputs))
        super().__init__(inputs, conv(width, "last", 2)(x), **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


def with_a_body():
    inputs = keras.Input(SIZE)
    return keras.Model(inputs, norm("n")(Body(8, name="body")(inputs)))


class Scale(layers.Layer):  # not registered
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x):
        return x * self.factor


def with_a_class_of_the_user():
    x = inputs = keras.Input(SIZE)
    inner = keras.Sequential([conv(8, "c"), Scale(name="scale")], name="inner")
    return keras.Model(inputs, Scale(name="scale")(inner(x)))


class Tied(layers.Layer):
    """Has a layer that another place has, too."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other

    def call(self, x):
        return self.other(x)

    def get_config(self):
        other = keras.saving.serialize_keras_object(self.other)
        return {"other": other, "name": self.name}

    @classmethod
    def from_config(cls, config):
        other = keras.saving.deserialize_keras_object(config.pop("other"))
        return cls(other, **config)


NETS = {
    "plain": (plain, ["sum", "c[14]"], 3),
    "strides": (plain, "every stride", 2),
    "operations": (plain, "relu.*", 1),
    "sequential": (sequential, ["n", "c2"], 2),
    "nested": (with_nested_models, "middle/(inner/sum|tail/n)", 2),
    "around": (with_nested_models, "first", 1),
    "shared": (with_shared_layers, ["after", "n"], 2),
    "functions": (with_functions, ["lambda", "c"], 2),
    "body": (with_a_body, "body/.*", 3),
    "beside_body": (with_a_body, "n", 1),
    "user": (with_a_class_of_the_user, ["inner/.*", "scale"], 3),
}
