"""Axial attention: line by line, as others have it, and in nets."""

from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
from kanets.attention import AxialAttention, DenseAttention, axial_attention
from tests.attention.golden_axial import axial_maps
from tests.attention.references import cases, from_golden
from tests.attention.test_operators import softmax
from tests.backends import dot, gradient, to_numpy
from tests.layer_checks import check_layer, fill_weights, random

FILE = Path(__file__).parent.parent / "golden" / "axial_lucidrains.npz"
CASES = cases(FILE)
GRIDS = [(5, 7), (1, 4), (3, 1), (6,), (3, 2, 4)]
MODES = ["sum", "sequential"]


def by_loop(x, num_heads=1, scale=1.0, mask=None, mode="sum"):
    """In float64, one cell, head and axis at a time."""
    x = x.astype("float64")
    mask = np.ones(x.shape[:-1], bool) if mask is None else mask
    size = x.shape[-1] // num_heads
    total = np.zeros_like(x)
    for axis in range(1, x.ndim - 1):
        found = np.zeros_like(x)
        for place in np.ndindex(x.shape[:-1]):
            line = list(place)
            line[axis] = slice(None)
            line = tuple(line)
            keys = x[line][mask[line]]
            if not mask[place]:
                continue
            for n in range(num_heads):
                part = slice(n * size, (n + 1) * size)
                weights = softmax(scale * keys[:, part] @ x[place][part])
                found[place][part] = weights @ keys[:, part]
        if mode == "sequential":
            x = total = found
        else:
            total += found
    return total


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_loops(grid, mode):
    x = random(2, *grid, 6)
    mask = np.random.default_rng(1).uniform(size=x.shape[:-1]) < 0.7
    for given in (None, mask):
        arguments = {"num_heads": 3, "scale": 0.5, "mask": given, "mode": mode}
        found = to_numpy(axial_attention(x, **arguments))
        expected = by_loop(x, **arguments)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_code(case):
    arrays = CASES[case]
    layer, call = from_golden(FILE.name, case, arrays)
    output = to_numpy(call(arrays["input"]))
    np.testing.assert_allclose(output, arrays["output"], atol=1e-5)

    def loss(x, *values):
        variables = zip(layer.trainable_variables, values, strict=True)
        with keras.StatelessScope(list(variables)):
            return dot(call(x), arrays["cotangent"])

    values = [to_numpy(v) for v in layer.trainable_variables]
    of_input, *of_weights = gradient(loss, arrays["input"], *values)
    scale = np.abs(arrays["grad_input"]).max()
    np.testing.assert_allclose(
        of_input, arrays["grad_input"], atol=1e-5 * scale
    )
    axes = range(arrays["input"].ndim - 2)
    kernels, biases = axial_maps(arrays, axes, "grad_")
    compared = 0
    for variable, found in zip(
        layer.trainable_variables, of_weights, strict=True
    ):
        _, name, kind = variable.path.rsplit("/", 2)
        expected = (kernels if kind == "kernel" else biases).get(name)
        if expected is not None:  # the published code has no other biases
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
            compared += 1
    assert compared == 5 * len(axes)


def test_of_a_sequence_it_is_dense_attention():
    x = random(2, 7, 6)
    found = axial_attention(x, 2, "rsqrt", return_attention_scores=True)
    dense = DenseAttention(projections="", num_heads=2, scale="rsqrt")
    for one, other in zip(
        found, dense(x, return_attention_scores=True), strict=True
    ):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), atol=1e-6)


def layer_of(mode="sum", **more):
    return AxialAttention(
        mode, num_heads=2, projections="qkvo", use_bias=True, **more
    )


@pytest.mark.parametrize(
    ("mode", "shape", "grids"),
    [
        ("sum", (2, 5, 7, 4), ((1, 1), (1, 7), (5, 3))),
        pytest.param(
            "sequential",
            (2, 5, 3, 4),
            ((1, 1), (1, 7), (4, 3)),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            "sum",
            (2, 3, 2, 5, 4),
            ((1, 1, 1), (2, 1, 3)),
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_checks_of_every_layer(mode, shape, grids):
    check_layer(
        lambda **more: layer_of(mode, **more),
        shape,
        grids=grids,
        no_gradient={
            f"key_{axis}/bias": "it adds the same to all logits of a query"
            for axis in range(len(shape) - 2)
        },
    )


@pytest.mark.parametrize("mode", MODES)
def test_maps_times_cells_are_the_output(mode):
    x = random(2, 5, 4, 6)
    layer = AxialAttention(mode, num_heads=2, projections="")
    output = to_numpy(layer(x)).reshape(2, 5, 4, 2, 3)
    times = 2 if mode == "sum" else 1
    for cell in ((0, 0), (4, 2)):
        maps = layer.attention_maps(x, cell)
        found = np.einsum("bnij,bijnd->bnd", maps, x.reshape(2, 5, 4, 2, 3))
        expected = output[:, cell[0], cell[1]]
        np.testing.assert_allclose(times * found, expected, atol=1e-5)
    beside = maps[:, :, 0, 0]  # in neither the row nor the column of the cell
    assert np.all(beside == 0) if mode == "sum" else np.all(beside > 0)


@pytest.mark.parametrize("mode", MODES)
def test_padding_changes_nothing(mode):
    x = random(2, 3, 5, 4)
    padded = 9 * random(2, 4, 7, 4, seed=1)
    padded[:, :3, :5] = x
    mask = np.zeros(padded.shape[:-1], bool)
    mask[:, :3, :5] = True
    layer = layer_of(mode)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)
    actual = to_numpy(layer(padded, mask=mask))
    expected = to_numpy(layer(x))
    np.testing.assert_allclose(actual[:, :3, :5], expected, atol=1e-5)
    assert np.all(actual[~mask] == 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_closed_start_opens(mode):
    """Every last map that is zero gets a gradient, and none is shut behind."""
    inputs = keras.Input((4, 3, 4))
    made = {"name": "axial", "mode": mode, "projections": "qkvo"}
    outputs = kanets.layers.residual_attention(inputs, made)
    model = keras.Model(inputs, outputs)
    x = random(8, 4, 3, 4)
    np.testing.assert_array_equal(to_numpy(model(x)), x)
    model.compile("sgd", "mse")
    model.fit(x, random(8, 4, 3, 4, seed=1), batch_size=4, verbose=0)
    model.fit(x, random(8, 4, 3, 4, seed=1), batch_size=4, verbose=0)
    for variable in model.get_layer("attention").trainable_variables:
        assert np.abs(to_numpy(variable)).max() > 0, variable.path


def test_put_into_a_net_by_name():
    inputs = keras.Input((8, 6, 3))
    x = keras.layers.Conv2D(4, 3, name="maps")(inputs)
    plain = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    net = kanets.insert_attention(plain, "maps", "axial")
    layer = net.get_layer("maps_attention")
    assert isinstance(layer, AxialAttention) and layer.scale == "rsqrt"
    x = random(2, 8, 6, 3)
    np.testing.assert_array_equal(to_numpy(net(x)), to_numpy(plain(x)))


@pytest.mark.thorough  # the shared tests of the table are quicker
def test_in_nets_by_name():
    sizes = {"classes": 3, "strides": (2, 1, 2, 2, 1)}
    kanet = kanets.KANet((32, 32, 3), 0.01, attention="axial", **sizes)
    found = kanets.visualize.attention_layers(kanet)
    assert {type(layer) for layer in found.values()} == {AxialAttention}
    assert np.all(np.isfinite(to_numpy(kanet(random(1, 32, 32, 3)))))
    made = {"name": "axial", "num_heads": 4}
    lite = kanets.EfficientNetLite((32, 32, 3), classes=3, attention=made)
    layer = lite.get_layer("block_2_attention")
    assert isinstance(layer, AxialAttention) and layer.num_heads == 4
    assert np.all(np.isfinite(to_numpy(lite(random(1, 32, 32, 3)))))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: AxialAttention("rows"),
            'must be "sum" or "sequential". Received: mode=\'rows\'',
        ),
        (
            lambda: axial_attention(random(1, 2, 3, 4), mode="rows"),
            "Received: mode='rows'",
        ),
        (
            lambda: axial_attention(random(1, 2, 3, 4), num_heads=3),
            "Received: num_heads=3, channels=4",
        ),
        (
            lambda: axial_attention(random(2, 4)),
            r"grid axis or more. Received: x.shape=\(2, 4\)",
        ),
        (
            lambda: axial_attention(random(1, 2, 3, 4), mask=np.ones((1, 2))),
            r"Received: mask.shape=\(1, 2\)",
        ),
        (
            lambda: (
                [f := AxialAttention(), f(random(1, 2, 3, 4))]
                and f(random(1, 3, 4))
            ),
            "expected ndim=4, found ndim=3",
        ),
    ],
)
def test_bad_input_is_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()
