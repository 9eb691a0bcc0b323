"""SAGAN and YLG-SAGAN as a Keras model that trains with `fit()`.

Zhang et al., "Self-Attention Generative Adversarial Networks" (ICML 2019):
hinge loss, spectral norm in both networks, two learning rates. Daras et al.,
"Your Local GAN" (CVPR 2020): the same with sparse attention.
"""

import types

import keras
from keras import ops

from kanets.attention.checks import check_positive
from ylg.gan.checks import check_labels, check_pixels
from ylg.gan.discriminator_network import discriminator
from ylg.gan.generator_network import generator
from ylg.gan.gradients import gradient_step, run_stateless, step_of_backend
from ylg.gan.optimizer_pair import OptimizerPair
from ylg.gan.sampling import draw

NETWORK_ARGUMENTS = (
    "image_size",
    "width",
    "num_classes",
    "attention",
    "attention_size",
    "num_heads",
)


@keras.saving.register_keras_serializable(package="ylg")
class SAGAN(keras.Model):
    """A generator and a discriminator that train against each other.

        loss_D = mean relu(1 - D(x, c)) + mean relu(1 + D(G(z, c), c))
        loss_G = -mean D(G(z, c), c)

    One training step updates the discriminator `discriminator_steps` times,
    each time on all pictures of the batch and new latents, then the
    generator once, then the moving average of the generator's weights. Labels
    of generated pictures are those of the batch.

    Args:
        image_size: side of the pictures: 32, 64, 128 or 256.
        width: factor of the channels; 64 in the papers.
        num_classes: number of classes, or None: then no labels are used.
        latent_size: length of z.
        attention: "ylg" (YLG-SAGAN), "dense" (SAGAN), or another mechanism,
            by its name or a dictionary; None is none. See `ylg.gan.generator`.
        attention_size, num_heads: as in `ylg.gan.generator`.
        seed: of the latents. Initial weights follow
            `keras.utils.set_random_seed`.
        **kwargs: of `keras.Model`; `dtype` is the precision.

    Call arguments:
        z (B, latent_size) and, with classes, labels (B,), as
        `[z, labels]`.

    Returns:
        Pictures (B, image_size, image_size, 3), float32 in [-1, 1], of the
        averaged generator.

    `fit()` takes batches of pictures, or of `(pictures, labels)`, with pixels
    in 0..255 of any dtype: a NumPy array, a `tf.data.Dataset`, what
    `kanets.data.load` returns. Weights files hold everything a training
    needs to continue as if it had not been stopped: both networks, the
    average, both optimizers and the generator of latents; so Keras's
    `BackupAndRestore` resumes.

    Attributes:
        generator, discriminator: the networks that are trained.
        averaged_generator: the moving average of the generator, the one to
            sample from.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Example:

    >>> gan = ylg.SAGAN(image_size=32, width=16, num_classes=10)
    >>> gan.compile()
    >>> gan.fit(images, labels, batch_size=64, epochs=10)
    >>> pictures = gan.generate(16, seed=0)

    References:
        - [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), section 4
        - [Daras et al., 2020](https://arxiv.org/abs/1911.12287), section 5
        - [Lim and Ye, 2017](https://arxiv.org/abs/1705.02894), the hinge
    """

    def __init__(
        self,
        image_size=32,
        width=64,
        num_classes=None,
        latent_size=128,
        attention="ylg",
        attention_size=None,
        num_heads=8,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_size = image_size
        self.width = width
        self.num_classes = num_classes
        self.latent_size = latent_size
        self.attention = attention
        self.attention_size = attention_size
        self.num_heads = num_heads
        self.seed = seed
        arguments = {name: getattr(self, name) for name in NETWORK_ARGUMENTS}
        arguments["dtype"] = self.dtype_policy
        self.generator = generator(latent_size=latent_size, **arguments)
        self.discriminator = discriminator(**arguments)
        self.averaged_generator = generator(
            latent_size=latent_size, name="averaged_generator", **arguments
        )
        self.averaged_generator.set_weights(self.generator.get_weights())
        self.averaged_generator.trainable = False
        self.noise = keras.random.SeedGenerator(seed)
        self._means = [
            keras.metrics.Mean(name)
            for name in (
                "generator_loss",
                "discriminator_loss",
                "real_logit",
                "fake_logit",
            )
        ]
        self.built = True

    def compile(
        self,
        generator_optimizer=None,
        discriminator_optimizer=None,
        discriminator_steps=1,
        average=0.999,
        jit_compile="auto",
        run_eagerly=False,
        steps_per_execution=1,
    ):
        """Configures training.

        Args:
            generator_optimizer: a Keras optimizer, or its name; default
                Adam(1e-4, beta_1=0, beta_2=0.9), SAGAN's.
            discriminator_optimizer: likewise; default Adam with 4e-4.
            discriminator_steps: updates of the discriminator for each of the
                generator.
            average: decay of the moving average of the generator; less in
                the first steps, (1 + t) / (10 + t) at most. 0 is none.
            jit_compile, run_eagerly, steps_per_execution: as in
                `keras.Model.compile`. Saved as they are given: what "auto"
                is depends on where a model is loaded.

        Under "mixed_float16" each loss is scaled by its own optimizer.

        Raises:
            ValueError: a number out of its range.
        """
        self.discriminator_steps = check_positive(
            discriminator_steps=discriminator_steps
        )
        if not 0 <= average < 1:
            raise ValueError(
                f"average must be in [0, 1). Received: average={average!r}"
            )
        self.average = average
        self._execution = {
            "jit_compile": jit_compile,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
        }
        pair = OptimizerPair(
            _optimizer(generator_optimizer, 1e-4, self.dtype_policy),
            _optimizer(discriminator_optimizer, 4e-4, self.dtype_policy),
        )
        pair.build_pair(
            self.generator.trainable_variables,
            self.discriminator.trainable_variables,
        )
        super().compile(
            optimizer=pair,
            loss=None,
            auto_scale_loss=False,  # each of the pair does it itself
            **self._execution,
        )

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            **self.optimizer.get_config(),
            "discriminator_steps": self.discriminator_steps,
            "average": self.average,
            **self._execution,
        }

    def compile_from_config(self, config):
        for name in ("generator_optimizer", "discriminator_optimizer"):
            optimizer = keras.saving.deserialize_keras_object(config[name])
            config = {**config, name: optimizer}
        self.compile(**config)

    @property
    def generator_optimizer(self):
        return self.optimizer.generator_optimizer

    @property
    def discriminator_optimizer(self):
        return self.optimizer.discriminator_optimizer

    @property
    def metrics(self):
        return self._means

    def call(self, inputs):
        return self.averaged_generator(inputs, training=False)

    def fit(self, x=None, y=None, *arguments, **options):
        """Trains on pictures and, with classes, their labels.

        Args:
            x, y, *arguments, **options: as in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: pixels that are not in 0..255, labels that are no
                integers of 0..num_classes - 1: of arrays any, of other data
                those of the first batch, which is read once more for it. A
                backend that is neither TensorFlow nor JAX.
        """
        step_of_backend()
        if hasattr(x, "dtype"):
            first = (x, y)
        elif isinstance(x, types.GeneratorType):  # it gives each batch once
            first = next(x, None)
            x = _put_back(first, x)
        else:
            first = None if x is None else next(iter(x), None)
        if first is not None:
            images, labels, _ = keras.utils.unpack_x_y_sample_weight(first)
            check_pixels(images)
            if self.num_classes is not None and labels is not None:
                check_labels(labels, self.num_classes)
        return super().fit(x, y, *arguments, **options)

    def generate(self, count, labels=None, seed=0, batch_size=64):
        """Pictures of the averaged generator.

        Args:
            count: how many, 1 or more.
            labels: int (count,) or (count, 1), or None: with classes, all in
                turn.
            seed: of the latents.
            batch_size: pictures at a time.

        Returns:
            float32 NumPy array (count, image_size, image_size, 3) in [-1, 1].

        Raises:
            ValueError: a count below 1, labels that are no integers of
                0..num_classes - 1.
        """
        count = check_positive(count=count)
        z = keras.random.normal((count, self.latent_size), seed=seed)
        z = ops.convert_to_numpy(z)
        return draw(self.averaged_generator, z, labels, batch_size)

    def train_step(self, *arguments):
        """One step on a batch, as the backend's trainer calls it."""
        if keras.backend.backend() == "jax":
            state, data = arguments
            return run_stateless(self, state, lambda: self._step(data))
        return self._step(*arguments)

    def test_step(self, *_):
        raise NotImplementedError(
            "A GAN has no validation loss. Use the callback "
            "`ylg.gan.Evaluation` for metrics of generated pictures."
        )

    def get_config(self):
        names = (*NETWORK_ARGUMENTS, "latent_size", "seed")
        return {
            **super().get_config(),
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            **{name: getattr(self, name) for name in names},
        }

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["noise"] = ops.convert_to_numpy(self.noise.state)

    def load_own_variables(self, store):
        self.noise.state.assign(store["noise"][()])

    def _step(self, data):
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        if self.num_classes is not None and labels is None:
            raise ValueError(
                "A conditional SAGAN needs batches (pictures, labels). "
                f"Received: pictures alone, num_classes={self.num_classes}"
            )
        if self.num_classes is not None:
            labels = ops.reshape(labels, (-1,))  # (n, 1), too
        images = ops.cast(images, "float32") / 127.5 - 1.0
        for _ in range(self.discriminator_steps):
            discriminator_loss, (real, fake) = gradient_step(
                lambda: self._discriminator_loss(images, labels),
                self.discriminator.trainable_variables,
                self.discriminator_optimizer,
                self,
            )
        generator_loss, _ = gradient_step(
            lambda: self._generator_loss(ops.shape(images)[0], labels),
            self.generator.trainable_variables,
            self.generator_optimizer,
            self,
        )
        self._update_average()
        values = (generator_loss, discriminator_loss, real, fake)
        for mean, value in zip(self._means, values, strict=True):
            mean.update_state(value)
        return {mean.name: mean.result() for mean in self._means}

    def _discriminator_loss(self, images, labels):
        count = ops.shape(images)[0]
        fakes = ops.stop_gradient(self._fakes(count, labels))
        both = ops.concatenate([images, fakes], axis=0)
        if labels is not None:
            labels = ops.concatenate([labels, labels], axis=0)
        logits = self._judge(both, labels)
        real, fake = logits[:count], logits[count:]
        loss = ops.mean(ops.relu(1.0 - real)) + ops.mean(ops.relu(1.0 + fake))
        return loss, (ops.mean(real), ops.mean(fake))

    def _generator_loss(self, count, labels):
        logits = self._judge(self._fakes(count, labels), labels)
        return -ops.mean(logits), ()

    def _fakes(self, count, labels):
        z = keras.random.normal((count, self.latent_size), seed=self.noise)
        inputs = z if self.num_classes is None else [z, labels]
        return self.generator(inputs, training=True)

    def _judge(self, images, labels):
        inputs = images if self.num_classes is None else [images, labels]
        return self.discriminator(inputs, training=True)

    def _update_average(self):
        steps = ops.cast(self.generator_optimizer.iterations, "float32")
        decay = ops.minimum(self.average, (1.0 + steps) / (10.0 + steps))
        # Moving statistics and singular vectors, too: they belong to the
        # weights.
        for averaged, variable in zip(
            self.averaged_generator.variables,
            self.generator.variables,
            strict=True,
        ):
            value = ops.cast(variable, "float32")
            old = ops.cast(averaged, "float32")
            averaged.assign(value + decay * (old - value))


def _put_back(first, rest):
    if first is not None:
        yield first
    yield from rest


def _optimizer(optimizer, learning_rate, policy):
    if optimizer is None:
        optimizer = keras.optimizers.Adam(learning_rate, beta_1=0.0, beta_2=0.9)
    optimizer = keras.optimizers.get(optimizer)
    scaled = keras.optimizers.LossScaleOptimizer
    if policy.compute_dtype == "float16" and not isinstance(optimizer, scaled):
        optimizer = scaled(optimizer)
    return optimizer
