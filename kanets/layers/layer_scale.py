"""A factor for each channel, small at first: how deep branches are opened.

Touvron et al., "Going deeper with Image Transformers", ICCV 2021.
"""

import keras


@keras.saving.register_keras_serializable(package="kanets")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned number.

        Y[..., c] = gamma[c] X[..., c]

    Args:
        initial: what all of gamma starts at.

    Call arguments:
        inputs: float tensor (..., C), C known.

    Returns:
        Tensor of the same shape.

    Cost: one pass over X.

    References: Touvron et al., https://arxiv.org/abs/2103.17239, equation 4.
    """

    def __init__(self, initial=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial
        self.supports_masking = True

    def build(self, input_shape):
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial),
            name="gamma",
        )
        self.built = True

    def call(self, inputs):
        return inputs * self.gamma

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "initial": self.initial}
