"""SAGAN: the training step against one written by hand; resuming; saving."""

import json
import types

import keras
import numpy as np
import pytest
from keras import ops

import ylg
from tests.backends import BACKEND, needs_gan_steps, to_numpy
from ylg.gan.checks import check_pixels

# A graph takes seconds to trace, for the one or two steps of most tests. On
# JAX it is the single operations that take long.
QUICK = {"run_eagerly": BACKEND == "tensorflow"}
checked_once = pytest.mark.skipif(
    BACKEND == "jax",
    reason="not about the backend; JAX takes half a minute to compile a step",
)
SMALL = {"image_size": 32, "width": 2, "latent_size": 8, "num_heads": 2}


def make(num_classes=3, attention="ylg", **arguments):
    keras.utils.set_random_seed(0)
    gan = ylg.SAGAN(
        num_classes=num_classes, attention=attention, **{**SMALL, **arguments}
    )
    for network in (gan.generator, gan.discriminator):
        if attention is not None:
            network.get_layer("attention").sigma.assign(0.5)
    gan.averaged_generator.set_weights(gan.generator.get_weights())
    return gan


def pictures(count=8, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3)).astype("uint8")
    return images, (np.arange(count) % num_classes).astype("int32")


def fit(gan, images, labels, epochs=1, initial_epoch=0, callbacks=()):
    given = (images,) if labels is None else (images, labels)
    return gan.fit(
        *given,
        batch_size=4,
        epochs=epochs,
        initial_epoch=initial_epoch,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history


def close(first, second, atol):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@needs_gan_steps
@pytest.mark.parametrize(
    "num_classes, attention, steps, options",
    (
        (3, "ylg", 1, QUICK),
        pytest.param(None, "dense", 2, QUICK, marks=pytest.mark.slow),
        pytest.param(*(2, None, 1, {}), marks=[checked_once, pytest.mark.slow]),
        pytest.param(
            *(3, "ylg", 1, {}), marks=[checked_once, pytest.mark.slow]
        ),
    ),
    ids=["ylg", "dense", "a graph", "a graph with ylg"],
)
def test_fit(num_classes, attention, steps, options):
    gan = make(num_classes, attention)
    gan.compile(discriminator_steps=steps, **options)
    images, labels = pictures(4, num_classes=num_classes or 1)
    before = [v.copy() for v in gan.get_weights()]
    history = fit(gan, images, None if num_classes is None else labels, 2)
    assert set(history) == {
        "generator_loss",
        "discriminator_loss",
        "real_logit",
        "fake_logit",
    }
    assert np.all(np.isfinite(list(history.values())))
    assert int(gan.generator_optimizer.iterations) == 2
    assert int(gan.discriminator_optimizer.iterations) == 2 * steps
    after = gan.get_weights()
    for variable, old, new in zip(gan.weights, before, after, strict=True):
        assert np.all(np.isfinite(new)), variable.path
        assert not np.array_equal(old, new), variable.path


def test_losses_by_hand():
    """The hinge of logits on both sides of its edges, and their mean."""
    images, labels = ops.ones((3, 2, 2, 3)), ops.convert_to_tensor([0, 2, 1])
    real, fake = [-0.5, 0.5, 1.5], [0.25, -1.5, -0.75]
    judged = []

    def judge(*given):
        judged.extend(to_numpy(tensor) for tensor in given)
        return ops.convert_to_tensor([*real, *fake][: len(judged[0])])

    networks = types.SimpleNamespace(
        _fakes=lambda count, labels: ops.zeros((count, 2, 2, 3)), _judge=judge
    )
    loss, (mean_real, mean_fake) = ylg.SAGAN._discriminator_loss(
        networks, images, labels
    )
    np.testing.assert_allclose(loss, (1.5 + 0.5) / 3 + (1.25 + 0.25) / 3, 1e-6)
    np.testing.assert_allclose([mean_real, mean_fake], [0.5, -2 / 3], 1e-6)
    np.testing.assert_array_equal(judged[0].mean((1, 2, 3)), [1] * 3 + [0] * 3)
    np.testing.assert_array_equal(judged[1], [0, 2, 1] * 2)
    judged.clear()
    loss, _ = ylg.SAGAN._generator_loss(networks, 3, labels)
    np.testing.assert_allclose(loss, -0.5, 1e-6)
    assert not judged[0].any() and judged[1].tolist() == [0, 2, 1]


@needs_gan_steps
@pytest.mark.slow
def test_a_step_by_hand():
    """Losses and the discriminator's update, from the formulas."""
    gan = make()
    gan.compile(
        keras.optimizers.SGD(0.0),
        keras.optimizers.SGD(0.125),
        average=0.0,
        **QUICK,
    )
    twin = make()
    images, labels = pictures(4)
    history = fit(gan, images, labels)

    z = keras.random.normal((4, 8), seed=keras.random.SeedGenerator(0))
    fakes = twin.generator([z, ops.convert_to_tensor(labels)], training=True)
    both = ops.concatenate([images / np.float32(127.5) - 1, fakes], 0)
    inputs = [both, ops.convert_to_tensor(np.tile(labels, 2))]
    logits = to_numpy(twin.discriminator(inputs, training=True))
    real, fake = logits[:4], logits[4:]
    loss = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    np.testing.assert_allclose(
        history["discriminator_loss"][0], loss, rtol=1e-4
    )
    np.testing.assert_allclose(history["real_logit"][0], real.mean(), rtol=1e-4)
    # d loss / d bias of the last map: the hinge of each logit that is open.
    slope = np.mean(fake > -1) - np.mean(real < 1)
    moved = -0.125 * slope
    bias = gan.discriminator.get_layer("dense").layer.bias
    np.testing.assert_allclose(to_numpy(bias), moved, atol=1e-6)
    # A generator that learns at rate 0 keeps what is trained of it.
    close(
        [to_numpy(v) for v in gan.generator.trainable_variables],
        [to_numpy(v) for v in twin.generator.trainable_variables],
        0,
    )
    # An average of decay 0 is the generator, moving statistics included.
    close(gan.averaged_generator.get_weights(), gan.generator.get_weights(), 0)


@needs_gan_steps
@pytest.mark.slow
@checked_once
def test_generator_climbs_the_logit():
    gan = make()
    gan.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.0), **QUICK)
    history = fit(gan, *pictures(4), epochs=8)["generator_loss"]
    assert history[-1] < history[0] - 0.05


@pytest.mark.slow
@needs_gan_steps
@checked_once
def test_moving_average():
    gan = make()
    gan.compile(average=0.99, **QUICK)
    start = [to_numpy(v).copy() for v in gan.generator.variables]
    fit(gan, *pictures(4))
    decay = (1 + 1) / (10 + 1)  # after one step
    for averaged, variable, old in zip(
        gan.averaged_generator.variables,
        gan.generator.variables,
        start,
        strict=True,
    ):
        expected = decay * old + (1 - decay) * to_numpy(variable)
        np.testing.assert_allclose(to_numpy(averaged), expected, atol=1e-5)


@pytest.mark.slow
@checked_once
def test_weights_hold_all_that_a_training_needs(tmp_path):
    draw, states = np.random.default_rng(0), []
    gans = [make(attention=None, seed=seed) for seed in (0, 7)]
    for gan in gans:
        gan.compile()
        states.append([*gan.weights, gan.noise.state])
        for optimizer in (gan.generator_optimizer, gan.discriminator_optimizer):
            states[-1] += optimizer.variables
        for variable in states[-1]:
            values = draw.uniform(1, 99, variable.shape)
            variable.assign(values.astype(variable.dtype))
    gans[0].save_weights(tmp_path / "gan.weights.h5")
    gans[1].load_weights(tmp_path / "gan.weights.h5")
    for saved, loaded in zip(*states, strict=True):
        np.testing.assert_array_equal(to_numpy(loaded), to_numpy(saved))


@needs_gan_steps
@pytest.mark.slow
def test_resume_is_exact(tmp_path):
    """Weights, average, both optimizers and the latents go on as they were."""
    images, labels = pictures()
    gan = make()
    gan.compile(**QUICK)
    backup = keras.callbacks.BackupAndRestore(
        tmp_path / "backup", delete_checkpoint=False
    )
    fit(gan, images, labels, epochs=2, callbacks=[backup])
    expected = fit(gan, images, labels, epochs=3, initial_epoch=2)
    resumed = make(seed=7)
    resumed.compile(**QUICK)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    found = fit(resumed, images, labels, epochs=3, callbacks=[backup])
    assert len(found["generator_loss"]) == 1
    for name, values in found.items():
        np.testing.assert_allclose(values[0], expected[name][0], rtol=1e-4)
    close(resumed.get_weights(), gan.get_weights(), 1e-5)


@needs_gan_steps
@pytest.mark.slow
@checked_once
def test_a_saved_model_goes_on(tmp_path):
    gan = make()
    gan.compile(
        keras.optimizers.Adam(3e-4, beta_1=0.25),
        discriminator_steps=2,
        average=0.5,
        **QUICK,
    )
    images, labels = pictures(4)
    fit(gan, images, labels)
    path = tmp_path / "gan.keras"
    gan.save(path)
    loaded = keras.saving.load_model(path)
    assert loaded.get_config() == gan.get_config()
    assert loaded.get_compile_config() == gan.get_compile_config()
    close(loaded.get_weights(), gan.get_weights(), 0)
    assert int(loaded.discriminator_optimizer.iterations) == 2
    np.testing.assert_allclose(loaded.generate(3), gan.generate(3), atol=1e-5)
    # The second step depends on what the optimizers remember.
    expected = fit(gan, images, labels, epochs=2)
    found = fit(loaded, images, labels, epochs=2)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3)


@pytest.mark.slow
def test_how_it_runs_is_saved_as_given():
    gan, copy = make(attention=None), make(attention=None)
    for given in (
        {"jit_compile": False, "steps_per_execution": 2},
        {"run_eagerly": True},
        {},
    ):
        gan.compile(**given)
        expected = {
            "jit_compile": "auto",
            "run_eagerly": False,
            "steps_per_execution": 1,
            **given,
        }
        config = json.loads(json.dumps(gan.get_compile_config()))
        assert {name: config[name] for name in expected} == expected
        copy.compile_from_config(config)
        assert copy.get_compile_config() == gan.get_compile_config()
        for name in expected:
            assert getattr(copy, name) == getattr(gan, name)
    # Files from before hold what "auto" was, and nothing of the others.
    for name in ("run_eagerly", "steps_per_execution"):
        del config[name]
    copy.compile_from_config({**config, "jit_compile": False})
    assert copy.jit_compile is False and copy.steps_per_execution == 1


class Two(keras.utils.PyDataset):
    """Two batches of four."""

    def __init__(self, images, labels):
        super().__init__()
        self.arrays = (images, labels)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return tuple(a[4 * index : 4 * index + 4] for a in self.arrays)


def generated(images, labels):
    for index in (0, 1):
        yield images[4 * index :][:4], labels[4 * index :][:4]


def tf_data(images, labels):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)


@needs_gan_steps
@pytest.mark.parametrize("kind", ("array", Two, generated, tf_data))
@pytest.mark.parametrize(
    "change, message",
    (
        ((lambda x, y: (x / 255.0, y)), "pixels in 0..255.* in 0..1$"),
        ((lambda x, y: (x / 127.5 - 1, y)), "Received: pixels in -1..1$"),
        ((lambda x, y: (x * np.nan, y)), "Received: pixels in nan..nan$"),
        ((lambda x, y: (x, y + 1)), "labels in 1..3, num_classes=3$"),
        ((lambda x, y: (x, y + 0.5)), "labels must be integers.*float64"),
        ((lambda x, y: (x, y - 1)), "labels must be.* in -1..1, num"),
    ),
)
def test_data_of_another_range_is_refused(kind, change, message):
    if kind is tf_data and BACKEND != "tensorflow":
        pytest.skip("about tf.data")
    gan = Untrained()
    images, labels = pictures()
    images[:, 0, 0, 0], images[:, 0, 0, 1] = 0, 255
    data = change(images, labels)
    data = data if kind == "array" else (kind(*data),)
    with pytest.raises(ValueError, match=message):
        gan.fit(*data, verbose=0)


class Untrained(ylg.SAGAN):
    """For what happens before there is a step: nothing but classes."""

    def __init__(self):
        keras.Model.__init__(self)
        self.num_classes = 3


@needs_gan_steps
@pytest.mark.slow
@checked_once
def test_no_batch_is_lost_by_looking():
    gan = make(attention=None)
    gan.compile(**QUICK)
    images, labels = pictures()
    data = generated(images, labels)  # a third batch would be missed
    gan.fit(data, steps_per_epoch=2, shuffle=False, verbose=0)
    assert int(gan.generator_optimizer.iterations) == 2


def test_black_pictures_are_pictures():
    for values in ([0], [0, 2], [0, 255], np.zeros((0,))):
        check_pixels(np.array(values, "float32"))
    for values in ([0, 1], [0, 0.5], [256], [-1]):
        with pytest.raises(ValueError, match="pixels in 0..255"):
            check_pixels(np.array(values, "float32"))


def test_what_cannot_be_generated():
    gan = make(attention=None)
    for call, message in (
        (lambda: gan.generate(0), "positive integer. Received: count=0"),
        (lambda: gan.generate(-1), "Received: count=-1"),
        (
            lambda: gan.generate(2, [0, 3]),
            "labels must be in .* labels in 0..3, num_classes=3",
        ),
        (lambda: gan.generate(2, [0.9, 1.9]), "integers.* of dtype float64"),
        (lambda: gan.generate(2, ["a", "b"]), "integers.* of dtype <U1"),
        (lambda: gan.generate(2, 1), r"integers.*shape \(\)"),
        (lambda: gan.generate(2, [[0, 1]]), r"integers.*shape \(1, 2\)"),
        (
            lambda: ylg.gan.draw(gan.averaged_generator, np.zeros((0, 8))),
            r"one latent vector or more. Received: z.shape=\(0, 8\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    found, expected = (gan.generate(2, x) for x in ([[0], [2]], [0, 2]))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_generate():
    gan = make()
    norm = gan.averaged_generator.get_layer("block1_norm1")
    norm.beta.assign(np.random.default_rng(0).normal(size=norm.beta.shape))
    images = gan.generate(5, seed=3)
    assert images.shape == (5, 32, 32, 3) and images.dtype == np.float32
    assert np.abs(images).max() <= 1 and images.std() > 1e-3
    np.testing.assert_array_equal(images, gan.generate(5, seed=3))
    np.testing.assert_allclose(
        images, gan.generate(5, [0, 1, 2, 0, 1], seed=3), atol=1e-6
    )
    assert np.abs(images - gan.generate(5, [1] * 5, seed=3)).max() > 1e-3
    assert np.abs(images - gan.generate(5, seed=4)).max() > 1e-2
    assert make(None).generate(2).shape == (2, 32, 32, 3)


@pytest.mark.slow
@needs_gan_steps
@pytest.mark.parametrize(
    "policy",
    (
        "mixed_float16",
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow),
    ),
)
def test_mixed_precision(policy):
    if BACKEND == "jax" and policy == "mixed_float16":
        pytest.skip("minutes of float16 compilation on a CPU")
    gan = make(dtype=policy)
    gan.compile(**QUICK)
    scaled = isinstance(
        gan.generator_optimizer, keras.optimizers.LossScaleOptimizer
    )
    assert scaled == (policy == "mixed_float16")
    if scaled:  # from 2^15 it would take a dozen steps to find its place
        gan.compile(
            *(
                keras.optimizers.LossScaleOptimizer(
                    keras.optimizers.Adam(1e-4), initial_scale=scale
                )
                for scale in (4.0, 16.0)
            ),
            **QUICK,
        )
    trained = gan.generator.trainable_variables
    trained = [*trained, *gan.discriminator.trainable_variables]
    before = [to_numpy(v).copy() for v in trained]
    history = fit(gan, *pictures(4), epochs=2)
    assert np.all(np.isfinite(list(history.values())))
    assert np.abs(history["generator_loss"]).max() < 100  # not the scaled one
    for variable, old in zip(trained, before, strict=True):
        new = to_numpy(variable)
        assert np.all(np.isfinite(new)), variable.path
        assert not np.array_equal(new, old), variable.path
    if scaled:  # each optimizer has a scale of its own
        pair = (gan.generator_optimizer, gan.discriminator_optimizer)
        scales = [float(optimizer.dynamic_scale) for optimizer in pair]
        assert scales == [4.0, 16.0]  # no step was skipped


@pytest.mark.slow
def test_one_xla_program():
    """The whole step compiles, attention included."""
    gan = make(attention="ylg")
    gan.compile(jit_compile=True)
    history = fit(gan, *pictures(4))
    assert np.all(np.isfinite(list(history.values())))


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="about tf.data")
def test_tf_data():
    import tensorflow as tf

    gan = make()
    gan.compile(**QUICK)
    data = tf.data.Dataset.from_tensor_slices(pictures(8)).batch(3)
    history = gan.fit(
        data, shuffle=False, verbose=0
    ).history  # batches of 3, 3 and 2
    assert np.all(np.isfinite(list(history.values())))


@needs_gan_steps
@pytest.mark.slow
@checked_once
def test_callbacks(tmp_path):
    gan = make()
    gan.compile(**QUICK)
    images, labels = pictures(8)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.AveragePooling2D(16)(x)
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(3, activation="softmax")(x)
    classifier = keras.Model(inputs, outputs)
    extractor = ylg.metrics.classifier_features(classifier, name="tiny")
    evaluation = ylg.gan.Evaluation(images, extractor, count=30, every=2)
    grid = ylg.gan.SampleGrid(tmp_path / "samples", rows=2, columns=3)
    history = fit(gan, images, labels, epochs=2, callbacks=[evaluation, grid])
    written = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert written == ["epoch_0001.png", "epoch_0002.png"]
    size = keras.utils.load_img(tmp_path / "samples" / written[0]).size
    assert size == (3 * 34 - 2, 2 * 34 - 2)
    # Measured after the second epoch alone, and as `ylg.metrics` does.
    assert len(history["frechet_distance"]) == 1
    expected = ylg.metrics.evaluate(images, gan.generate(30, seed=1), extractor)
    for name in ("frechet_distance", "kernel_distance"):
        np.testing.assert_allclose(
            history[name][0], expected[name], rtol=1e-3, atol=1e-6
        )


@pytest.mark.slow
def test_a_diverged_generator_is_reported_and_stops_nothing():
    gan = make()
    kernel = gan.averaged_generator.get_layer("conv").layer.kernel
    kernel.assign(to_numpy(kernel) * np.nan)
    evaluation = ylg.gan.Evaluation(pictures(4)[0], None, count=2)
    evaluation.set_model(gan)
    logs = {}
    evaluation.on_epoch_end(0, logs)
    assert set(logs) == set(evaluation.names)
    assert np.all(np.isnan(list(logs.values())))


def test_picture_grid():
    images = np.stack([np.full((2, 2, 3), v, "float32") for v in (-1, 0, 1)])
    grid = ylg.gan.picture_grid(images, columns=2)
    assert grid.shape == (6, 6, 3) and grid.dtype == np.uint8
    np.testing.assert_array_equal(grid[0, :, 0], [0, 0, 255, 255, 128, 128])
    assert np.all(grid[4:, :2] == 255) and np.all(grid[2:4] == 255)


@pytest.mark.parametrize(
    "call, message",
    (
        (lambda: make().compile(discriminator_steps=0), "steps=0"),
        (lambda: make().compile(average=1.0), "average=1.0"),
        (lambda: ylg.SAGAN(image_size=40), "image_size=40"),
        (lambda: ylg.SAGAN(attention="sparse"), "attention='sparse'"),
    ),
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@needs_gan_steps
def test_misuse():
    images, labels = pictures(4)
    # A model each: on JAX, Keras leaves one whose step failed without values.
    for call, error, message in (
        (lambda gan: fit(gan, images, None), ValueError, "num_classes=3"),
        (
            lambda gan: gan.evaluate(images, labels, verbose=0),
            NotImplementedError,
            "Evaluation",
        ),
        (
            lambda gan: setattr(gan.optimizer, "learning_rate", 0.1),
            AttributeError,
            "generator_optimizer",
        ),
    ):
        gan = make()
        gan.compile(**QUICK)
        with pytest.raises(error, match=message):
            call(gan)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="about tf.distribute")
def test_replicas_are_refused(monkeypatch):
    import tensorflow as tf

    gan = make()
    gan.compile(**QUICK)
    two = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: two)
    with pytest.raises(ValueError, match="strategy of 2 replicas"):
        gan.train_step(pictures(4))
