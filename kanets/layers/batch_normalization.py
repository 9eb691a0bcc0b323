"""Batch normalisation, fused where TensorFlow has one operation for it.

On the TensorFlow backend Keras writes batch normalisation as a dozen
operations, each a pass over the maps; their gradients are as many again.
TensorFlow's own fused operation is the same function in two passes, and its
graph optimizer joins it with a convolution before it. What that is worth in
training is measured in `benchmarks/training.csv`.
"""

import keras

from kanets import compat

# cuDNN's least: below it TensorFlow's operation fails on a GPU.
_MIN_FUSED_EPSILON = 1.001e-5


@keras.saving.register_keras_serializable(package="kanets")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster on TensorFlow.

    The same arguments, weights and results: batch moments in training,
    moving averages (of the biased variance) otherwise. On TensorFlow, maps
    (B, H, W, C) normalised over the last axis with scale and offset take one
    fused operation in float32; whatever else is asked for (masks, other axes,
    renormalisation, synchronised replicas, weights that are not float32, an
    epsilon below 1.001e-5, which is cuDNN's least, other backends) is computed
    by Keras.

    Call arguments, Returns: as in Keras.

    Cost: two passes over the maps in training, one at inference.

    Example:

    >>> BatchNormalization()(keras.ops.ones((2, 4, 4, 8))).shape
    (2, 4, 4, 8)

    References: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """

    def call(self, inputs, training=None, mask=None):
        if mask is not None or not self._has_fused_form(inputs):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        training = bool(training and self.trainable)
        # In training the operation computes the moments itself.
        moments = (self.moving_mean, self.moving_variance)
        mean, variance = ([], []) if training else moments
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, "float32"),
            scale=self.gamma,
            offset=self.beta,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # Its variance is the unbiased one; Keras keeps the biased one.
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), "float32")
            variance = variance * (tf.maximum(count - 1.0, 1.0) / count)
            for average, value in zip(moments, (mean, variance), strict=True):
                kept = average * self.momentum
                average.assign(kept + value * (1.0 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)

    def _has_fused_form(self, inputs):
        wide = keras.backend.result_type(inputs.dtype, "float32")
        return (
            keras.backend.backend() == "tensorflow"
            and not isinstance(inputs, keras.KerasTensor)
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and self.epsilon >= _MIN_FUSED_EPSILON
            and not self.synchronized
            and not getattr(self, "renorm", False)  # not in Keras 3.12
            and self.variable_dtype == wide == "float32"
        )


def set_norm_momentum(model, momentum):
    """Sets it in all batch normalisations of a model, or within a layer."""
    for layer in compat.all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
