"""What models of pictures and sentences share: cells of a net, and words."""

import keras
import numpy as np

from kanets.checks import positive_integer
from kanets.data.vocabulary import Vocabulary
from kanets.layers.position_embeddings import PositionEmbeddings
from kanets.nets.insertion import copied


class PictureLanguageModel(keras.Model):
    """A functional model of "pictures" and "tokens".

    Args:
        features: `keras.Model` from pictures to its map, a part of this one.
        vocabulary: `kanets.data.Vocabulary`.
        grid: (H, W) of the map.
        inputs, outputs, name, **kwargs: of `keras.Model`.
        settings: the other arguments of the class, "max_length" among them.
    """

    def __init__(
        self,
        features,
        vocabulary,
        grid,
        *,
        inputs,
        outputs,
        name,
        settings,
        **kwargs,
    ):
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.vocabulary = vocabulary
        self.grid = grid
        self._settings = settings
        self._features_name = features.name

    @property
    def features(self):
        return self.get_layer(self._features_name)

    @property
    def max_length(self):
        return self._settings["max_length"]

    def check_pictures(self, pictures, batch_size=1):
        """Raises a ValueError for what is no picture or more, or no batch."""
        positive_integer("batch_size", batch_size)
        shape, one = np.shape(pictures), self.features.input_shape[1:]
        if shape[1:] != one or not shape[0]:
            raise ValueError(
                f"pictures must be an array of one or more of {one}. "
                f"Received: pictures of shape {tuple(shape)}"
            )

    def encode(self, sentences):
        """The numbers of one sentence or more, as of the vocabulary."""
        if not len(sentences):
            raise ValueError(
                "There must be one sentence or more. "
                f"Received: sentences={sentences!r}"
            )
        return self.vocabulary.encode(sentences, self.max_length)

    def get_config(self):
        return {
            "features": keras.saving.serialize_keras_object(self.features),
            "vocabulary": self.vocabulary.words,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            **self._settings,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        features = keras.saving.deserialize_keras_object(
            config["features"], custom_objects=custom_objects
        )
        config = {**config, "features": features}
        policy = keras.config.dtype_policy()  # older ones tell of none
        keras.config.set_dtype_policy(
            keras.dtype_policies.get(config.pop("dtype", policy))
        )
        try:
            return cls(**config)
        finally:
            keras.config.set_dtype_policy(policy)


def checked(features, vocabulary, max_length):
    """The `Vocabulary`, and the length as an integer; raises a ValueError."""
    if not isinstance(features, keras.Model):
        raise ValueError(
            f"features must be a keras.Model. Received: features={features!r}"
        )
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary(vocabulary)
    return vocabulary, positive_integer("max_length", max_length)


def map_cells(features, pictures, trainable, name):
    """The cells of a feature model's map, normalised, with their places.

    Args:
        features: `keras.Model` from pictures to a map (B, H, W, C) of known
            size, or to a dict of one; a copy of it runs, in inference mode.
        pictures: what it takes, symbolic.
        trainable: whether training changes it.
        name: str, of the last layer.

    Returns:
        Tensor (B, H·W, C), and (H, W).

    Raises:
        ValueError: other outputs.
    """
    # Copied inside of a model, it keeps its class, which saved weights name.
    features = copied(keras.Model(pictures, features(pictures))).layers[-1]
    features.trainable = trainable
    maps = keras.tree.flatten(features(pictures, training=False))
    if len(maps) != 1 or len(maps[0].shape) != 4 or None in maps[0].shape[1:]:
        shapes = [tuple(tensor.shape) for tensor in maps]
        raise ValueError(
            "features must make one map (batch, height, width, channels) of "
            f"known size. Received: features={features.name!r}, which makes "
            f"{shapes}"
        )
    [x] = maps
    *grid, channels = x.shape[1:]
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = PositionEmbeddings(tuple(grid), name="positions")(x)
    return keras.layers.Reshape((-1, channels), name=name)(x), tuple(grid)
