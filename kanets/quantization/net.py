"""A net inside of a layer that computes it as 8-bit integers will."""

import keras
from keras import ops

from kanets.quantization.operators import fake_quantize, observed_range
from kanets.quantization.program import Program

MOMENTUM = 0.99


@keras.saving.register_keras_serializable(package="kanets")
class QuantizationAware(keras.layers.Layer):
    """A functional net, computed with the errors of 8-bit integers.

    `kanets.quantization.prepare` makes a model of it. The weights are the
    net's, in floats; each call rounds them and what goes from layer to layer.
    In training, the range that a tensor is rounded in follows what is seen,
    as a mean over batches: r <- r + max(1 / n, 1 - momentum) (seen - r) in the
    n-th batch, where seen is its least and greatest number, or 0.

    Args:
        net: a functional `keras.Model`, which becomes this layer's own.
        momentum: float in [0, 1), of the ranges.

    Call arguments, Returns: those of the net.

    Attributes:
        net: the model.
        ranges: float32 (ranges, 2), least and greatest number.
        range_names: list of str, of what they are of.
        batches: how many they were made of. Before the first they mean
            nothing.

    Raises:
        ValueError: what `prepare` refuses; a momentum out of its range.

    Cost: memory of one more copy of each map in training, as gradients are
    masked.
    """

    def __init__(self, net, momentum=MOMENTUM, **kwargs):
        super().__init__(**{"autocast": False, "dtype": "float32", **kwargs})
        if not 0 <= momentum < 1:
            raise ValueError(
                f"momentum must be in [0, 1). Received: momentum={momentum}"
            )
        self.net = net
        self.momentum = momentum
        self._program = Program(net)
        self.range_names = self._program.range_names
        arguments = {"trainable": False, "dtype": "float32"}
        self.ranges = self.add_weight(
            shape=(len(self.range_names), 2),
            initializer=_first_ranges,
            name="ranges",
            **arguments,
        )
        self.batches = self.add_weight(
            shape=(), initializer="zeros", name="batches", **arguments
        )
        self.built = True

    def call(self, inputs, training=None):
        learns = bool(training) and self.trainable
        ranges = ops.convert_to_tensor(self.ranges)
        fresh = 0.0  # the share of this batch
        if learns:
            fresh = ops.maximum(1.0 / (self.batches + 1.0), 1.0 - self.momentum)
            ranges = ranges * (1.0 - fresh)
        kept = [ops.unstack(bounds) for bounds in ops.unstack(ranges, axis=1)]
        used = {}

        def quantize(x, quantizer):
            if isinstance(quantizer, int) and quantizer not in used:
                bounds = [column[quantizer] for column in kept]
                if learns:
                    seen = observed_range(x)
                    bounds = [
                        old + fresh * new
                        for old, new in zip(bounds, seen, strict=True)
                    ]
                used[quantizer] = bounds
            return fake_quantize(x, *used.get(quantizer, quantizer))

        outputs = self._program.run(inputs, quantize, bool(training))
        if learns:
            rows = [ops.stack(used[row]) for row in range(len(used))]
            self.ranges.assign(ops.stack(rows))
            self.batches.assign(self.batches + 1.0)
        return outputs

    def compute_output_spec(self, inputs, training=None):
        return self.net.compute_output_spec(inputs)

    @property
    def outputs(self):
        """Those of the net, symbolic: what ends it can be found by them."""
        return self.net.outputs

    def get_config(self):
        return {
            **super().get_config(),
            "net": keras.saving.serialize_keras_object(self.net),
            "momentum": self.momentum,
        }

    @classmethod
    def from_config(cls, config):
        net = keras.saving.deserialize_keras_object(config["net"])
        return cls(**{**config, "net": net})


def _first_ranges(shape, dtype=None):
    return ops.broadcast_to(ops.cast([-8.0, 8.0], dtype), shape)
