"""Lookahead, the one optimizer of TensorFlow Addons that Keras lacks.

`docs/tensorflow-addons.md` says what to use for the others. We differ from
the original in one place: the slow weights are read at the first step, not
when the optimizer is built, so weights loaded in between are not lost.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="ylg")
class Lookahead(keras.optimizers.Optimizer):
    """Let an optimizer run ahead, then step part of the way after it.

    The inner optimizer moves the fast weights, which are the weights of the
    model. A second copy, the slow weights, follows at every
    `sync_period`-th step, and the fast weights return to it:

        slow <- slow + slow_step_size * (fast - slow)
        fast <- slow

    `sync_period` is k in the paper, `slow_step_size` is alpha.

    Learning rate, weight decay, gradient clipping, gradient accumulation and
    the moving average belong to the inner optimizer: set them there. A moving
    average follows the fast weights; with accumulation a step is an update,
    not a batch. Under mixed precision the loss scale goes outside:
    `LossScaleOptimizer(Lookahead(...))`, which is what `compile()` does.

    Args:
        inner_optimizer: `keras.optimizers.Optimizer`, or the name or config
            of one. As in `LossScaleOptimizer`, it is taken over and must not
            be used elsewhere.
        sync_period: Integer >= 1, updates between two synchronisations.
            Defaults to `6`.
        slow_step_size: Float in [0, 1], the part of the way that the slow
            weights go. Defaults to `0.5`.
        name: Optional string.

    Raises:
        TypeError: If `inner_optimizer` is a `LossScaleOptimizer`.
        ValueError: If `sync_period` or `slow_step_size` is out of range.

    Cost: one copy of the trainable weights and one pass over them per step.

    Example:

    >>> optimizer = Lookahead(keras.optimizers.AdamW(1e-3), sync_period=5)
    >>> model.compile(optimizer, "sparse_categorical_crossentropy")

    References:
        - [Zhang et al., 2019](https://arxiv.org/abs/1907.08610), algorithm 1
    """

    def __init__(
        self, inner_optimizer, sync_period=6, slow_step_size=0.5, name=None
    ):
        inner_optimizer = keras.optimizers.get(inner_optimizer)
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise TypeError(
                "The loss scale must be outside: use "
                "`LossScaleOptimizer(Lookahead(optimizer))`. "
                f"Received: inner_optimizer={inner_optimizer}"
            )
        if int(sync_period) != sync_period or sync_period < 1:
            raise ValueError(
                "`sync_period` must be an integer >= 1. "
                f"Received: sync_period={sync_period}"
            )
        if not 0 <= slow_step_size <= 1:
            raise ValueError(
                "`slow_step_size` must be in [0, 1]. "
                f"Received: slow_step_size={slow_step_size}"
            )
        # Only the outermost optimizer sees the loss: it takes the scale.
        loss_scale_factor = inner_optimizer.loss_scale_factor
        inner_optimizer.loss_scale_factor = None
        super().__init__(
            learning_rate=0.0, loss_scale_factor=loss_scale_factor, name=name
        )
        self.inner_optimizer = inner_optimizer
        self.sync_period = int(sync_period)
        self.slow_step_size = float(slow_step_size)

    def build(self, variables):
        """Creates the slow weights and the state of the inner optimizer.

        Args:
            variables: List of the trainable variables of the model.
        """
        if self.built:
            return
        super().build(variables)
        self._slow_weights = self.add_optimizer_variables(variables, "slow")
        self.inner_optimizer.build(variables)

    @property
    def variables(self):
        return super().variables + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    def _backend_apply_gradients(self, grads, trainable_variables):
        # `_backend_update_step` is the hook that reaches every replica of a
        # variable under `tf.distribute`. It also sums what it is given as
        # gradients: the slow weights need none, and a scalar costs nothing.
        none = [ops.zeros(())] * len(grads)
        self._starting = True
        self._backend_update_step(none, trainable_variables, 0.0)
        self.inner_optimizer.apply(grads, trainable_variables)
        self._starting = False
        self._backend_update_step(none, trainable_variables, 0.0)

    def update_step(self, gradient, variable, learning_rate):
        """Starts or synchronises the slow copy of one variable.

        Args:
            gradient: Unused.
            variable: The variable of the model, the fast weights.
            learning_rate: Unused.
        """
        slow_variable = self._slow_weights[self._get_variable_index(variable)]
        fast = ops.convert_to_tensor(variable)
        slow = ops.convert_to_tensor(slow_variable)
        if self._starting:
            is_first = ops.equal(self._iterations, 0)
            self.assign(slow_variable, ops.where(is_first, fast, slow))
            return
        batches = self.inner_optimizer.gradient_accumulation_steps or 1
        period = self.sync_period * batches
        is_sync = ops.equal((self._iterations + 1) % period, 0)
        target = slow + ops.cast(self.slow_step_size, fast.dtype) * (
            fast - slow
        )
        self.assign(variable, ops.where(is_sync, target, fast))
        self.assign(slow_variable, ops.where(is_sync, target, slow))

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        # The base class would add arguments that belong to `inner_optimizer`.
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        inner["config"]["loss_scale_factor"] = self.loss_scale_factor
        return {
            "name": self.name,
            "inner_optimizer": inner,
            "sync_period": self.sync_period,
            "slow_step_size": self.slow_step_size,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner_optimizer = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "inner_optimizer": inner_optimizer})
