"""Two optimizers that Keras saves and restores as one."""

import keras


@keras.saving.register_keras_serializable(package="ylg")
class OptimizerPair(keras.optimizers.Optimizer):
    """What `SAGAN.compile` gives to Keras: it keeps the state of both.

    Each optimizer is applied by the training step, never through the pair.

    Args:
        generator_optimizer, discriminator_optimizer: Keras optimizers.
    """

    def __init__(self, generator_optimizer, discriminator_optimizer):
        super().__init__(learning_rate=0.0, name="optimizer_pair")
        self.generator_optimizer = keras.optimizers.get(generator_optimizer)
        self.discriminator_optimizer = keras.optimizers.get(
            discriminator_optimizer
        )

    def build_pair(self, generator_variables, discriminator_variables):
        """Creates the state of both optimizers."""
        self.generator_optimizer.build(generator_variables)
        self.discriminator_optimizer.build(discriminator_variables)
        self.build([])

    @property
    def variables(self):
        return (
            super().variables
            + self.generator_optimizer.variables
            + self.discriminator_optimizer.variables
        )

    @property
    def learning_rate(self):
        return self.generator_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        raise AttributeError(
            "Set the learning rate of `generator_optimizer` and of "
            f"`discriminator_optimizer`. Received: {learning_rate!r}"
        )

    @property
    def iterations(self):
        return self.generator_optimizer.iterations

    def save_own_variables(self, store):
        """Nothing: Keras finds the two optimizers and saves each."""

    def load_own_variables(self, store):
        """Nothing, see above."""

    def finalize_variable_values(self, var_list):
        """Nothing: SAGAN keeps its own moving average."""

    def get_config(self):
        return {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in ("generator_optimizer", "discriminator_optimizer")
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(
                    value, custom_objects=custom_objects
                )
                for name, value in config.items()
            }
        )
