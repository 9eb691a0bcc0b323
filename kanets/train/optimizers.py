"""Optimizers that Keras does not have.

Layer-wise learning rates: lower layers of a pretrained net move less.

Keras has one learning rate per optimizer. Here each variable has a factor of
it, by its path, in a dict that is saved with the optimizer.

What is alike for all variables, the rate of a schedule and Adam's corrections,
is computed once a step. Keras computes it for each variable, which nearly
doubles the optimizer's part of the graph that TensorFlow has to make before the
first step (`benchmarks/NOTES.md`).
"""

import keras

from ylg.gan.lookahead import Lookahead

__all__ = [
    "LayerwiseAdamW",
    "LayerwiseSGD",
    "Lookahead",
    "layer_decay_factors",
]


class _Layerwise:
    """Mixin for a Keras optimizer: `factors` maps a path to a factor."""

    def __init__(self, *args, factors=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.factors = dict(factors or {})
        for path, factor in self.factors.items():
            if not factor >= 0:
                raise ValueError(
                    "A learning-rate factor must not be negative. "
                    f"Received: factors[{path!r}]={factor!r}"
                )

    def build(self, variables):
        super().build(variables)
        paths = [v.path for v in variables]
        if self.factors and not set(self.factors) & set(paths):
            # Otherwise all rates would silently be equal.
            raise ValueError(
                "factors must name variables of the model by their path. "
                f"Received: factors={self.factors}; the paths are {paths}"
            )
        self._factor_list = [self.factors.get(path, 1.0) for path in paths]

    def _factor(self, variable):
        return self._factor_list[self._get_variable_index(variable)]

    def update_step(self, gradient, variable, learning_rate):
        rate = learning_rate * self._factor(variable)
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables):
        # Keras decays by weight * decay * rate: the same factor belongs here.
        if not self.weight_decay:
            return
        rate = self.learning_rate
        for variable in variables:
            if self._use_weight_decay(variable):
                decay = self.weight_decay * self._factor(variable)
                cast = keras.ops.cast(rate, variable.dtype)
                variable.assign(variable - variable * decay * cast)

    def get_config(self):
        return {**super().get_config(), "factors": self.factors}


@keras.saving.register_keras_serializable(package="kanets")
class LayerwiseSGD(_Layerwise, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with a learning-rate factor per variable.

    Args:
        *args, **kwargs: of `keras.optimizers.SGD`.
        factors: dict from a variable's path to the factor of its learning
            rate and weight decay; 1 where a path is absent. Keras gives the
            weights of a `Sequential` other paths when it is loaded: use a
            functional model.

    Raises:
        ValueError: a negative factor, or no path that the model has.
    """


@keras.saving.register_keras_serializable(package="kanets")
class LayerwiseAdamW(_Layerwise, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with a learning-rate factor per variable.

    Args:
        *args, **kwargs: of `keras.optimizers.AdamW`.
        factors: as in `LayerwiseSGD`.

    Raises:
        ValueError: as `LayerwiseSGD`.

    References: Clark et al., "ELECTRA", ICLR 2020, appendix A; Bao et al.,
    "BEiT", ICLR 2022.
    """

    _shared = None

    def apply(self, grads, trainable_variables=None):
        self._shared = self._scalars()
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._shared = None  # tensors of this step's graph alone

    def update_step(self, gradient, variable, learning_rate):
        plain = keras.backend.standardize_dtype(variable.dtype) == "float32"
        if self._shared is None or self.amsgrad or not plain:
            super().update_step(gradient, variable, learning_rate)
            return
        root, power_1, rest_1, rest_2, epsilon = self._shared
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        rate = learning_rate * self._factor(variable) * root / power_1
        gradient = keras.ops.cast(gradient, "float32")
        self.assign_add(momentum, (gradient - momentum) * rest_1)
        self.assign_add(
            velocity, (keras.ops.square(gradient) - velocity) * rest_2
        )
        spread = keras.ops.sqrt(velocity) + epsilon
        self.assign_sub(variable, momentum * rate / spread)

    def _scalars(self):
        """What Adam's update needs and is alike for all variables."""
        step = keras.ops.cast(self.iterations + 1, "float32")
        beta_1, beta_2, rest_1, rest_2, epsilon = (
            keras.ops.convert_to_tensor(value, "float32")
            for value in (
                self.beta_1,
                self.beta_2,
                1 - self.beta_1,
                1 - self.beta_2,
                self.epsilon,
            )
        )
        root = keras.ops.sqrt(1 - beta_2**step)
        return root, 1 - beta_1**step, rest_1, rest_2, epsilon


def layer_decay_factors(model, decay):
    """Learning-rate factors decay**k for the k-th layer below the head.

    Args:
        model: a functional `keras.Model`; layers with trainable weights
            count, in the order of the graph.
        decay: float in (0, 1].

    Returns:
        A dict from variable path to factor, for `factors=`.

    Raises:
        ValueError: `decay` outside (0, 1].

    Example:

        factors = layer_decay_factors(model, 0.9)
        model.compile(LayerwiseAdamW(1e-3, factors=factors), "mse")
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1]. Received: decay={decay!r}")
    layers = [layer for layer in model.layers if layer.trainable_weights]
    return {
        variable.path: decay**depth
        for depth, layer in enumerate(reversed(layers))
        for variable in layer.trainable_weights
    }
