"""Lookahead: against a loop in NumPy, in `fit()`, saved, and wrapped."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import needs_xla
from ylg.lookahead import Lookahead

# Keras 3.15 reads its own variables in a way that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword"
)
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="tf.distribute needs the TensorFlow backend",
)
SGD = keras.optimizers.SGD


def make_model(optimizer, constraint=None, **compile_arguments):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(7, "tanh", kernel_constraint=constraint),
            keras.layers.Dense(2, dtype="float32"),
        ]
    )
    model.compile(optimizer, "mse", **compile_arguments)
    return model


def fit(model, steps):
    """Trains for `steps` batches of 4 and returns the weights."""
    random = np.random.default_rng(5)
    x = random.normal(size=(4 * steps, 5)).astype("float32")
    y = random.normal(size=(4 * steps, 2)).astype("float32")
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    return [np.array(w) for w in model.get_weights()]


def assert_same(weights, expected, atol=1e-6):
    assert len(weights) == len(expected)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


def distance(weights, others):
    pairs = zip(weights, others, strict=True)
    return max(np.abs(a - b).max() for a, b in pairs)


def descend(optimizer, start, gradients):
    """Applies given gradients to one variable; returns every value of it."""
    variable = keras.Variable(start)
    optimizer.build([variable])
    values = []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
        values.append(ops.convert_to_numpy(variable.value))
    return np.array(values)


@pytest.mark.parametrize("sync_period", [1, 3, 5])
@pytest.mark.parametrize("slow_step_size", [0.0, 0.3, 1.0])
def test_matches_a_loop_in_numpy(sync_period, slow_step_size):
    random = np.random.default_rng(0)
    start = random.normal(size=(2, 3)).astype("float32")
    gradients = random.normal(size=(11, 2, 3)).astype("float32")
    expected, fast, slow = [], start, start
    for step, gradient in enumerate(gradients, 1):
        fast = fast - 0.1 * gradient
        if step % sync_period == 0:
            slow = fast = slow + slow_step_size * (fast - slow)
        expected.append(fast)
    optimizer = Lookahead(SGD(0.1), sync_period, slow_step_size)
    values = descend(optimizer, start, gradients)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert int(optimizer.iterations) == 11


@pytest.mark.parametrize(
    "jit_compile",
    [False, pytest.param(True, marks=[needs_xla, pytest.mark.slow])],
)
def test_fit_compiled_equals_eager(jit_compile):
    def optimizer():
        return Lookahead(keras.optimizers.AdamW(0.05), sync_period=3)

    eager = fit(make_model(optimizer(), run_eagerly=True), 8)
    compiled = fit(make_model(optimizer(), jit_compile=jit_compile), 8)
    plain = fit(make_model(keras.optimizers.AdamW(0.05)), 8)
    assert_same(compiled, eager, atol=1e-5)
    assert distance(plain, eager) > 0.01


INNER_ARGUMENTS = {
    "weight_decay": {"weight_decay": 0.3},
    "clipnorm": {"clipnorm": 0.02},
    "global_clipnorm": {"global_clipnorm": 0.02},
    "clipvalue": {"clipvalue": 0.001},
    "ema": {"use_ema": True, "ema_momentum": 0.7},
    "ema_overwrite": {"use_ema": True, "ema_overwrite_frequency": 2},
    "loss_scale": {"loss_scale_factor": 8.0},
    "accumulation": {"gradient_accumulation_steps": 2},
    "schedule": {
        "learning_rate": keras.optimizers.schedules.ExponentialDecay(
            0.2, 2, 0.5
        )
    },
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name == "accumulation" else pytest.mark.slow
        )
        for name in INNER_ARGUMENTS
    ],
)
def test_settings_of_the_inner_optimizer_still_work(name):
    settings = {"learning_rate": 0.2, **INNER_ARGUMENTS[name]}
    expected = fit(make_model(SGD(**settings)), 6)
    never = Lookahead(SGD(**settings), sync_period=100)
    assert_same(fit(make_model(never), 6), expected)
    if name != "loss_scale":
        # The setting matters at all in this problem.
        assert distance(fit(make_model(SGD(0.2)), 6), expected) > 1e-3


def test_accumulated_gradients_count_updates_not_batches():
    start = np.zeros((3,), "float32")
    gradients = np.ones((8, 3), "float32")
    inner = SGD(1.0, gradient_accumulation_steps=2)
    values = descend(Lookahead(inner, 2, 0.5), start, gradients)
    # Updates at batches 2, 4, 6, 8; the slow step at updates 2 and 4.
    np.testing.assert_allclose(values[:, 0], [0, -1, -1, -1, -1, -2, -2, -2])


def test_constraint_holds_after_the_slow_step():
    model = make_model(Lookahead(SGD(0.5), 2), keras.constraints.UnitNorm())
    norms = np.linalg.norm(fit(model, 4)[0], axis=0)
    np.testing.assert_allclose(norms, np.ones(7), rtol=1e-5)


def test_learning_rate_is_that_of_the_inner_optimizer():
    optimizer = Lookahead(SGD(0.25))
    assert float(optimizer.learning_rate) == 0.25
    optimizer.learning_rate = 0.5
    assert float(optimizer.inner_optimizer.learning_rate) == 0.5


def test_slow_weights_start_at_the_first_step_not_when_built():
    variable = keras.Variable(np.zeros((2,), "float32"))
    optimizer = Lookahead(SGD(1.0), sync_period=1, slow_step_size=0.5)
    optimizer.build([variable])
    variable.assign([10.0, 20.0])
    optimizer.apply([ops.ones((2,))], [variable])
    np.testing.assert_allclose(
        ops.convert_to_numpy(variable.value), [9.5, 19.5]
    )


def test_config_round_trip():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    inner = keras.optimizers.AdamW(
        schedule, weight_decay=0.2, clipnorm=2.0, loss_scale_factor=4.0
    )
    optimizer = Lookahead(inner, sync_period=4, slow_step_size=0.8, name="la")
    config = keras.optimizers.serialize(optimizer)
    copy = keras.optimizers.deserialize(json.loads(json.dumps(config)))
    assert isinstance(copy, Lookahead)
    assert keras.optimizers.serialize(copy) == config
    assert copy.loss_scale_factor == 4.0
    assert copy.inner_optimizer.loss_scale_factor is None
    assert (copy.sync_period, copy.slow_step_size) == (4, 0.8)
    assert copy.inner_optimizer.weight_decay == 0.2
    assert isinstance(Lookahead("adam").inner_optimizer, keras.optimizers.Adam)


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_run(tmp_path):
    def optimizer():
        return Lookahead(keras.optimizers.Adam(0.05), sync_period=4)

    expected = make_model(optimizer())
    fit(expected, 6)
    fit(expected, 6)
    model = make_model(optimizer())
    fit(model, 6)
    model.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    assert int(resumed.optimizer.iterations) == 6
    assert_same(fit(resumed, 6), expected.get_weights())
    # Without the state of the optimizer the run is another one.
    fresh = make_model(optimizer())
    fresh.set_weights(model.get_weights())
    assert distance(fit(fresh, 6), expected.get_weights()) > 1e-3


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_model_saved_before_training_starts_from_its_own_weights(tmp_path):
    model = make_model(Lookahead(SGD(0.1), sync_period=2))
    model.set_weights([w + 3.0 for w in model.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    # Keras builds the optimizer before it reads the weights of the model.
    assert loaded.optimizer.built
    assert_same(fit(loaded, 2), fit(model, 2))


def test_mixed_precision_skips_overflow_without_counting_it():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        lookahead = Lookahead(SGD(0.1), sync_period=3)
        model = make_model(
            keras.optimizers.LossScaleOptimizer(
                lookahead, initial_scale=2.0**21
            )
        )
        automatic = make_model(Lookahead(SGD(0.1)))
    finally:
        keras.config.set_dtype_policy(policy)
    assert isinstance(automatic.optimizer, keras.optimizers.LossScaleOptimizer)
    weights = fit(model, 12)
    done = int(lookahead.iterations)
    assert 3 < done < 12, "the first steps overflow, the last ones do not"
    assert all(np.isfinite(w).all() for w in weights)
    fit(model, 3 - done % 3)
    slow = [ops.convert_to_numpy(w.value) for w in lookahead._slow_weights]
    assert_same(model.get_weights(), slow)


@pytest.mark.thorough
def test_fixed_loss_scale_is_not_undone_twice_under_a_dynamic_one():
    inner = SGD(0.1, loss_scale_factor=128.0)
    dynamic = keras.optimizers.LossScaleOptimizer(Lookahead(inner, 3))
    expected = fit(make_model(Lookahead(SGD(0.1), 3)), 6)
    assert_same(fit(make_model(dynamic), 6), expected)


def test_moving_average_can_be_swapped_in():
    model = make_model(Lookahead(SGD(0.1, use_ema=True), sync_period=2))
    swap = keras.callbacks.SwapEMAWeights()
    x, y = np.ones((8, 5), "float32"), np.ones((8, 2), "float32")
    model.fit(x, y, validation_data=(x, y), callbacks=[swap], verbose=0)


def test_errors():
    with pytest.raises(ValueError, match="Received: sync_period=0"):
        Lookahead(SGD(), sync_period=0)
    with pytest.raises(ValueError, match="Received: sync_period=1.5"):
        Lookahead(SGD(), sync_period=1.5)
    with pytest.raises(ValueError, match="Received: slow_step_size=1.1"):
        Lookahead(SGD(), slow_step_size=1.1)
    with pytest.raises(TypeError, match="loss scale must be outside"):
        Lookahead(keras.optimizers.LossScaleOptimizer(SGD()))


MIRRORED = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
from tests.ylg.test_lookahead import (
    Lookahead, assert_same, fit, keras, make_model
)
def run(strategy):
    with strategy.scope():
        inner = keras.optimizers.AdamW(0.05)
        model = make_model(Lookahead(inner, sync_period=3))
    return fit(model, 8)
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert_same(run(mirrored), run(tf.distribute.get_strategy()), atol=1e-5)
"""


@pytest.mark.slow
@on_tensorflow
def test_two_mirrored_replicas_equal_one():
    run = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
