"""Gates: squeeze and excitation, and what else multiplies its own input."""

from pathlib import Path

import keras
import numpy as np
import pytest

import kanets
from kanets import attention, recipes
from kanets.attention import channel_kernel_size, global_context
from kanets.layers import residual_attention
from tests.attention import gate_references as references
from tests.attention.golden_convnets import differences
from tests.attention.references import cases
from tests.backends import compiled, dot, gradient, thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random

FILE = Path(__file__).parent.parent / "golden" / "convnet_gates.npz"
CASES = cases(FILE)
GATES = {
    "squeeze_excitation": references.squeeze_excitation,
    "efficient_channel": references.efficient_channel,
    "cbam": references.cbam,
    "global_context": references.context_added,
    "coordinate": references.coordinate,
    "efficient_local": references.efficient_local,
}
FORMS = [
    *((name, {}, function) for name, function in GATES.items()),
    (
        "squeeze_excitation",
        {"activation": "hard_sigmoid", "reduced_channels": 3},
        references.hard_squeeze_excitation,
    ),
    ("efficient_channel", {"kernel_size": 5}, references.efficient_channel),
    ("cbam", {"kernel_size": 3, "reduced_channels": 2}, references.cbam),
    ("global_context", {"fuse": "scale"}, references.context_scaled),
    ("coordinate", {"reduced_channels": 3}, references.coordinate),
    ("efficient_local", {"kernel_size": 3}, references.efficient_local),
]


@pytest.mark.parametrize("case", CASES)
@thorough_on_jax
def test_equals_the_published_code(case):
    found = differences(case, CASES[case])
    assert len(found) == 2 + sum("grad_w" in n for n in CASES[case])
    assert max(found.values()) < 1e-5, found


def make(name, arguments=(), shape=(None, None, None, 10)):
    layer = attention.make({"name": name, **dict(arguments)})
    layer.build(shape)
    fill_weights(layer.weights, layer.name)
    return layer


def of_loops(function, layer, x):
    ends = {w.path.removeprefix(f"{layer.name}/"): w for w in layer.weights}
    weights = {end: to_numpy(w).astype("float64") for end, w in ends.items()}
    return np.stack([function(picture, weights) for picture in x])


@pytest.mark.parametrize(("name", "arguments", "function"), FORMS)
@thorough_on_jax
def test_equals_loops(name, arguments, function):
    layer = make(name, arguments)
    for shape in ((2, 5, 3, 10), (1, 1, 1, 10), (1, 1, 7, 10)):
        x = random(*shape)
        expected = of_loops(function, layer, x.astype("float64"))
        found = to_numpy(layer(x, training=False))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("name", "arguments", "function"), FORMS)
@thorough_on_jax
def test_gradients_equal_differences_of_loops(name, arguments, function):
    layer, shape = make(name, arguments), (2, 3, 5, 10)
    x, cotangent = random(*shape), random(*shape, seed=1)
    way, step = random(*shape, seed=2).astype("float64"), 1e-6
    above, below = (
        np.sum(cotangent * of_loops(function, layer, x + side * way))
        for side in (step, -step)
    )
    [found] = gradient(lambda t: dot(layer(t, training=False), cotangent), x)
    expected = (above - below) / (2 * step)
    np.testing.assert_allclose(np.sum(found * way), expected, rtol=1e-4)


def test_weighted_means_of_all_cells():
    x, logits = random(2, 3, 5, 4), 3 * random(2, 3, 5, 1)
    context, weights = global_context(x, logits, True)
    assert (context.shape, weights.shape) == ((2, 1, 1, 4), (2, 1, 15))
    for picture, of, found, shares in zip(
        x, logits, to_numpy(context), to_numpy(weights), strict=True
    ):
        expected = np.exp(of.ravel()) / np.exp(of).sum()
        np.testing.assert_allclose(shares[0], expected, atol=1e-6)
        expected = sum(
            e * picture[i, j]
            for e, (i, j) in zip(expected, np.ndindex(3, 5), strict=True)
        )
        np.testing.assert_allclose(found[0, 0], expected, atol=1e-5)
    alone = global_context(x[:, :1, :1], logits[:, :1, :1])
    np.testing.assert_array_equal(to_numpy(alone), x[:, :1, :1])


def test_channels_that_a_convolution_sees():
    found = {c: channel_kernel_size(c) for c in (1, 32, 64, 128, 256, 2048)}
    assert found == {1: 3, 32: 3, 64: 3, 128: 5, 256: 5, 2048: 7}


@pytest.mark.parametrize("name", GATES)
@thorough_on_jax
def test_a_branch_gives_what_twice_the_gates_change(name):
    """And at first that is zero."""
    x = random(2, 3, 5, 10)
    branch = attention.make({"name": name, "as_branch": True})
    np.testing.assert_array_equal(to_numpy(branch(x)), 0.0)
    branch, layer = make(name, {"as_branch": True}), make(name)
    gates = [to_numpy(gate) for gate in layer.gates(x)]
    factor = np.prod(np.broadcast_arrays(1.0, *gates), axis=0)
    np.testing.assert_allclose(
        to_numpy(layer(x)),
        x * factor + (name == "global_context") * to_numpy(branch(x)),
        atol=1e-5,
    )
    if name != "global_context":
        assert 0 <= factor.min() and factor.max() <= 1
        changed = x * factor * 2 ** len(gates) - x
        np.testing.assert_allclose(to_numpy(branch(x)), changed, atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", GATES)
@thorough_on_jax
def test_a_closed_gate_is_exact_in_half_precision(name, dtype):
    x = inputs = keras.Input((3, 5, 8))
    y = residual_attention(x, name, dtype=dtype)
    model = keras.Model(inputs, y)
    x = 100 * random(2, 3, 5, 8).astype(dtype.removeprefix("mixed_"))
    np.testing.assert_array_equal(
        to_numpy(keras.ops.cast(model(x), "float32")),
        to_numpy(keras.ops.cast(x, "float32")),
    )


@pytest.mark.parametrize(
    ("name", "arguments", "reach"),
    [
        ("coordinate", {}, 0),
        ("efficient_local", {"kernel_size": 3}, 1),
        ("efficient_local", {"kernel_size": 9}, 4),
    ],
)
def test_rows_and_columns_are_seen(name, arguments, reach):
    _, scores = make(name, arguments)(
        random(2, 4, 5, 10), return_attention_scores=True
    )
    cells = list(np.ndindex(4, 5))
    for q, (i, j) in enumerate(cells):
        rows = [abs(i - row) <= reach for row in range(4)]
        columns = [abs(j - column) <= reach for column in range(5)]
        expected = [
            0.5 * rows[row] / sum(rows) / 5
            + 0.5 * columns[column] / sum(columns) / 4
            for row, column in cells
        ]
        for found in to_numpy(scores)[:, 0, q]:
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cells_under_the_kernel_are_seen():
    layer = make("cbam", {"kernel_size": 3})
    _, scores = layer(random(2, 4, 5, 10), return_attention_scores=True)
    cells = list(np.ndindex(4, 5))
    for q, (i, j) in enumerate(cells):
        near = [abs(i - k) <= 1 and abs(j - m) <= 1 for k, m in cells]
        expected = [0.5 / 20 + 0.5 * seen / sum(near) for seen in near]
        for found in to_numpy(scores)[:, 0, q]:
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_all_cells_see_the_same_context():
    layer, x = make("global_context"), random(2, 3, 4, 10)
    _, weights = global_context(x, layer.logits(x), True)
    _, scores = layer(x, return_attention_scores=True)
    expected = np.broadcast_to(to_numpy(weights)[:, None], (2, 1, 12, 12))
    np.testing.assert_allclose(to_numpy(scores), expected, atol=1e-6)
    maps = layer.attention_maps(x, (2, 1))
    np.testing.assert_allclose(
        maps, expected[:, :, 0].reshape(2, 1, 3, 4), atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "no_gradient"),
    [
        ("squeeze_excitation", {}),
        ("efficient_channel", {}),
        ("cbam", {}),
        (
            "global_context",
            {"logits/bias": "it moves all logits alike"},
        ),
        ("coordinate", {}),
        ("efficient_local", {}),
    ],
)
@pytest.mark.thorough
def test_layer(name, no_gradient):
    kind = attention.MECHANISMS[name].layer
    check_layer(kind, (2, 5, 6, 16), no_gradient=no_gradient)


@pytest.mark.thorough
def test_in_a_net():
    net = kanets.KANet(
        (32, 32, 3),
        attention={"name": "coordinate", "reduced_channels": 4},
        **{"alpha": 0.01, "classes": 3, "strides": (2, 1, 2, 2, 1)},
    )
    made = [getattr(layer, "attention", None) for layer in net.layers]
    widths = {layer.reduced_channels for layer in made if layer is not None}
    assert widths == {4}


@thorough_on_jax
def test_inserted_and_in_recipes():
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(16, 3, name="body")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    picture = random(2, 6, 7, 3)
    for name in GATES:
        copy = kanets.insert_attention(model, "body", name)
        np.testing.assert_array_equal(
            to_numpy(copy(picture)), to_numpy(model(picture))
        )
        assert copy.get_layer("body_attention").as_branch
        written = {"name": "KANet", "attention": {"name": name}}
        recipes.from_dict({"model": written})


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (("squeeze_excitation", "reduced_channels", 0), "reduced_channels=0"),
        (("squeeze_excitation", "activation", "relu"), "activation='relu'"),
        (("efficient_channel", "kernel_size", 4), "odd.*kernel_size=4"),
        (("efficient_channel", "kernel_size", -3), "kernel_size=-3"),
        (("cbam", "kernel_size", 2), "odd.*kernel_size=2"),
        (("cbam", "reduced_channels", 1.5), r"reduced_channels=1\.5"),
        (("global_context", "fuse", "both"), "add.*scale.*fuse='both'"),
        (("global_context", "reduced_channels", -1), "reduced_channels=-1"),
        (("coordinate", "reduced_channels", 0), "reduced_channels=0"),
        (("efficient_local", "kernel_size", 0), "kernel_size=0"),
        (("cbam", "num_heads", 2), "arguments of attention 'cbam' are"),
    ],
    ids=str,
)
def test_errors(written, text):
    name, argument, value = written
    with pytest.raises(ValueError, match=text):
        attention.make({"name": name, argument: value})


@pytest.mark.parametrize("name", GATES)
def test_what_is_no_picture(name):
    layer = attention.make(name)
    with pytest.raises(ValueError, match=r"known channels.*\(2, 6, 8\)"):
        layer(random(2, 6, 8))
    layer.build((None, None, None, 8))
    with pytest.raises(ValueError, match=r"width, channels.*\(2, 6, 8\)"):
        layer.gates(random(2, 6, 8))
    mask = np.ones((2, 3, 5), bool)
    with pytest.raises(ValueError, match="takes no mask"):
        layer(random(2, 3, 5, 8), mask=mask)
    for given in ({"num_heads": 2}, {"scale": "rsqrt"}):
        [[argument, value]] = given.items()
        with pytest.raises(ValueError, match=f"{argument}={value!r}"):
            type(layer)(**given)


def test_cbam_of_no_pictures():
    layer = attention.make("cbam")
    assert compiled(layer)(np.zeros((0, 3, 4, 8), "float32")).shape == (
        *(0, 3, 4),
        8,
    )
