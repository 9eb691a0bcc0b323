"""SAGAN's gate around attention of any kind.

Zhang et al., "Self-Attention Generative Adversarial Networks" (ICML 2019),
equation 3.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="ylg")
class GatedAttention(keras.layers.Wrapper):
    """y = x + sigma * attention(x), with a learned sigma that starts at zero.

    Args:
        layer: attention, from (B, *grid, C) to the same shape.

    Call arguments:
        inputs: float tensor (B, *grid, C).

    Returns:
        Tensor of the shape of the inputs, in the compute dtype.

    Raises:
        ValueError: what the layer refuses.

    References: Zhang et al., ICML 2019, section 3.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.sigma = self.add_weight(
            shape=(), initializer="zeros", name="sigma"
        )

    @property
    def attention(self):
        """The layer inside, for whoever draws it."""
        return self.layer

    def call(self, inputs):
        maps = self.layer(inputs)
        return inputs + ops.cast(self.sigma, maps.dtype) * maps

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        config = super().get_config()
        # `build` builds the layer, so that its weights have the same paths.
        config["layer"].pop("build_config", None)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # A copy: Keras's takes "layer" out of the dictionary it is given.
        return super().from_config(dict(config), custom_objects)
