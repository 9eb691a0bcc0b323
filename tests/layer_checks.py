"""The checks that every layer passes: `check_layer`, and what it is made of.

Weights are filled with numbers that have nothing neutral (no zero bias, no
unit variance), so that a weight that is lost or swapped shows.
"""

import inspect
import json
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import keras
import numpy as np

from tests.backends import BACKEND, compiled, to_numpy, weight_gradients

ROOT = Path(__file__).parent.parent
GRIDS = ((1, 1), (1, 7), (5, 3))
LOAD_AND_CALL = """
import sys
import keras
import kanets
import numpy as np
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def fill_weights(variables, root=""):
    """Gives each float variable numbers that depend on its path alone.

    The generator of a variable is `default_rng(crc32(path))`, its path taken
    without `root`. Kernels are normal with variance 2 / fan-in; scales and
    variances uniform in 0.5..1.5; means, offsets and biases normal / 10.
    """
    for variable in variables:
        if "float" not in keras.backend.standardize_dtype(variable.dtype):
            continue
        path = variable.path.removeprefix(root)
        rng = np.random.default_rng(zlib.crc32(path.encode()))
        shape = tuple(variable.shape)
        kind = path.rpartition("/")[2]
        if kind in ("gamma", "moving_variance"):
            values = rng.uniform(0.5, 1.5, shape)
        elif kind in ("beta", "moving_mean", "bias"):
            values = 0.1 * rng.normal(size=shape)
        else:
            inputs = shape[:2] if "depthwise" in path else shape[:-1]
            values = rng.normal(size=shape) * (2 / np.prod(inputs)) ** 0.5
        variable.assign(values.astype("float32"))


def call_in_a_fresh_process(path, x, backend=BACKEND):
    """Outputs of a saved model where only keras and kanets are imported."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "x.npy", Path(folder) / "y.npy"
        np.save(given, x)
        command = [sys.executable, "-c", LOAD_AND_CALL, path, given, found]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return np.load(found)


def check_layer(
    make_layer,
    input_shape,
    *,
    grids=GRIDS,
    no_gradient=None,
    opt_out=None,
    fresh_process=False,
):
    """Everything that must hold for a layer, whatever it computes.

    Args:
        make_layer: `make_layer(**kwargs)` returns a new layer; `kwargs` are
            arguments of `keras.layers.Layer`, such as `dtype`.
        input_shape: (B, *grid, C) of the main example.
        grids: other sizes the layer must take, of the same rank.
        no_gradient: dict from the end of a weight's path to the reason why
            the output does not depend on it. It is checked that it does not.
        opt_out: dict from the name of a check in `CHECKS` to the reason why
            the layer does not pass it.
        fresh_process: also load the saved model in another process.
    """
    opt_out = {} if opt_out is None else opt_out
    assert set(opt_out) <= set(CHECKS) and all(opt_out.values())
    for name, check in CHECKS.items():
        if name in opt_out:
            continue
        arguments = {
            "save_and_load": {"fresh_process": fresh_process},
            "gradients": {"no_gradient": no_gradient or {}},
            "other_grids": {"grids": grids},
            "open_sizes": {"grids": grids},
        }
        check(make_layer, input_shape, **arguments.get(name, {}))


def check_config(make_layer, input_shape):
    layer, x, expected = _example(make_layer, input_shape)
    config = layer.get_config()
    json.dumps(config)
    taken = set(inspect.signature(type(layer).__init__).parameters)
    assert taken - {"self", "kwargs"} <= set(config)
    serialized = keras.saving.serialize_keras_object(layer)
    for copy in (
        type(layer).from_config(config),
        keras.saving.deserialize_keras_object(
            json.loads(json.dumps(serialized))
        ),
    ):
        assert type(copy) is type(layer)
        assert copy.get_config() == config
        copy(x)
        copy.set_weights(layer.get_weights())
        np.testing.assert_array_equal(to_numpy(copy(x)), expected)


def check_symbolic(make_layer, input_shape):
    for dtype in ("float32", "mixed_bfloat16"):
        layer = make_layer(dtype=dtype)
        inputs = keras.Input(input_shape[1:], batch_size=input_shape[0])
        symbolic = layer(inputs)
        output = layer(random(*input_shape))
        assert symbolic.shape == tuple(output.shape)
        assert symbolic.dtype == _dtype(output)
        shape = layer.compute_output_shape((None, *input_shape[1:]))
        assert tuple(shape) == (None, *output.shape[1:])


def check_save_and_load(make_layer, input_shape, fresh_process):
    inputs = keras.Input(input_shape[1:])
    model = keras.Model(inputs, make_layer()(inputs))
    fill_weights(model.weights)
    x = random(*input_shape)
    expected = to_numpy(model(x, training=False))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
        actual = to_numpy(loaded(x, training=False))
        np.testing.assert_allclose(actual, expected, atol=1e-6)
        if fresh_process:
            actual = call_in_a_fresh_process(path, x)
            np.testing.assert_allclose(actual, expected, atol=1e-5)


def check_precision(make_layer, input_shape):
    layer, x, expected = _example(make_layer, input_shape)
    largest = np.abs(expected).max()
    for policy, dtype, tolerance in (
        ("mixed_float16", "float16", 0.02),
        ("mixed_bfloat16", "bfloat16", 0.1),
    ):
        half = make_layer(dtype=policy)
        half(x)
        half.set_weights(layer.get_weights())
        output = half(x)
        assert _dtype(output) == dtype
        assert {_dtype(w) for w in half.weights} <= {"float32"}
        output = to_numpy(keras.ops.cast(output, "float32"))
        assert np.all(np.isfinite(output))
        np.testing.assert_allclose(output, expected, atol=tolerance * largest)


def check_jit(make_layer, input_shape):
    layer, x, expected = _example(make_layer, input_shape)
    output = compiled(lambda t: layer(t, **_training(layer, False)))(x)
    np.testing.assert_allclose(to_numpy(output), expected, atol=1e-5)


def check_training(make_layer, input_shape):
    layer, x, expected = _example(make_layer, input_shape)
    before = [np.array(w) for w in layer.get_weights()]
    again = to_numpy(layer(x, **_training(layer, False)))
    np.testing.assert_array_equal(again, expected)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    output = to_numpy(layer(x, training=True))
    assert output.shape == expected.shape and np.all(np.isfinite(output))
    for variable, old in zip(layer.weights, before, strict=True):
        moved = not np.array_equal(to_numpy(variable), old)
        assert moved == ("moving_" in variable.path), variable.path
    if not layer.non_trainable_variables:
        np.testing.assert_array_equal(output, expected)


def check_gradients(make_layer, input_shape, no_gradient):
    layer, x, _ = _example(make_layer, input_shape)
    gradients = weight_gradients(layer, x, **_training(layer, True))
    assert len(gradients) == len(layer.trainable_variables)
    for path, gradient in gradients.items():
        assert np.all(np.isfinite(gradient)), path
        seen = np.abs(gradient).max() > 1e-4
        assert seen != any(path.endswith(end) for end in no_gradient), path
    for end, reason in no_gradient.items():
        assert reason and any(path.endswith(end) for path in gradients), end


def check_other_grids(make_layer, input_shape, grids):
    layer, _, _ = _example(make_layer, input_shape)
    for grid in grids:
        shape = (input_shape[0], *grid, input_shape[-1])
        output = to_numpy(layer(random(*shape), **_training(layer, False)))
        assert output.shape == tuple(layer.compute_output_shape(shape))
        assert np.all(np.isfinite(output))


def check_open_sizes(make_layer, input_shape, grids):
    layer, x, _ = _example(make_layer, input_shape)
    rank = len(input_shape) - 2
    inputs = keras.Input((*(None,) * rank, input_shape[-1]))
    outputs = layer(inputs)
    assert outputs.shape[:-1] == (None,) * (rank + 1)
    assert outputs.shape == tuple(layer.compute_output_shape(inputs.shape))
    function = keras.Model(inputs, outputs)
    if BACKEND == "tensorflow":  # a graph whose sizes really are open
        import tensorflow as tf

        open_shape = tf.TensorSpec(inputs.shape, tf.float32)
        function = tf.function(function, input_signature=[open_shape])
    for grid in (input_shape[1:-1], grids[0]):
        x = random(input_shape[0], *grid, input_shape[-1])
        expected = layer(x, **_training(layer, False))
        np.testing.assert_allclose(
            to_numpy(function(x)), to_numpy(expected), atol=1e-5
        )


CHECKS = {
    "config": check_config,
    "symbolic": check_symbolic,
    "save_and_load": check_save_and_load,
    "precision": check_precision,
    "jit": check_jit,
    "training": check_training,
    "gradients": check_gradients,
    "other_grids": check_other_grids,
    "open_sizes": check_open_sizes,
}


def _example(make_layer, input_shape):
    """A layer with filled weights, an input, and the output in inference."""
    layer, x = make_layer(), random(*input_shape)
    layer(x)
    fill_weights(layer.weights, layer.name)
    output = to_numpy(layer(x, **_training(layer, False)))
    assert np.all(np.isfinite(output)) and np.abs(output).max() > 1e-3
    return layer, x, output


def _training(layer, training):
    takes = "training" in inspect.signature(layer.call).parameters
    return {"training": training} if takes else {}


def _dtype(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)
