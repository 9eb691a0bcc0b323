"""Pixels 0..255 to what a net was trained on, and how pictures come to size."""

import keras


@keras.saving.register_keras_serializable(package="kanets")
class PixelScale(keras.layers.Rescaling):
    """Scales pixels, and remembers how pictures are fitted to the net.

        Y[..., c] = scale[c] X[..., c] + offset[c]

    What is saved with a net travels with it: evaluation, prediction and
    exports ask the layer, by `kanets.data.framing`, how to fit a picture.

    Args:
        scale, offset: a float, or a list of one for each channel.
        crop: None, or the fraction of the side that is seen, in (0, 1]: the
            shorter side of a picture is resized to the input's by `crop`,
            then the centre is cut out. None cuts first, by the rule of
            `kanets.data.pictures`.
        interpolation: "bilinear" or "bicubic".

    Call arguments:
        inputs: tensor (..., C), the channels last, whatever
            `keras.config.image_data_format()` is.

    Returns:
        Float tensor of the same shape.

    Cost: one pass over X.
    """

    def __init__(
        self, scale, offset=0.0, crop=None, interpolation="bilinear", **kwargs
    ):
        super().__init__(scale, offset, **kwargs)
        self.crop = crop
        self.interpolation = interpolation

    def call(self, inputs):
        cast, dtype = self.backend.cast, self.compute_dtype
        scaled = cast(inputs, dtype) * cast(self.scale, dtype)
        return scaled + cast(self.offset, dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "crop": self.crop,
            "interpolation": self.interpolation,
        }
