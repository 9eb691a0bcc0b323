"""Attention as a residual branch: closed at first, and it opens."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.layers import residual_attention
from tests.backends import BACKEND, to_numpy, weight_gradients
from tests.layer_checks import fill_weights, random

SHAPE = (2, 5, 7, 16)
FAMILY = [
    *attention.names(),
    {"name": "kao_kv", "projections": "qkvo", "num_heads": 4},
    {"name": "kao_qkv", "projections": "vo", "use_bias": True},
]
ON_JAX = [pytest.mark.thorough] if BACKEND == "jax" else []
# Without a last projection of their own: a second norm closes the branch.
SCALED = [
    {"name": "kao_qkv", "projections": ""},
    {"name": "dense", "projections": "qk"},
    {"name": "ylg", "num_heads": 2, "residual": True},
    {"name": "ylg", "num_heads": 2, "spectral_norm": True},
    lambda *, scale, dtype, name: keras.layers.Conv2D(
        16, 1, dtype=dtype, name=name
    ),
]


def build(identifier, shape=SHAPE[1:], **arguments):
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(16, 1, name="body")(inputs)
    y = residual_attention(x, identifier, name="new", **arguments)
    return keras.Model(inputs, [x, y])


def pair(model, x):
    before, after = model(x, training=False)
    assert before.dtype == after.dtype
    return [to_numpy(keras.ops.cast(t, "float32")) for t in (before, after)]


@pytest.mark.parametrize(
    "identifier",
    [*FAMILY, SCALED[0], *(pytest.param(i, marks=ON_JAX) for i in SCALED[1:])],
    ids=lambda given: "a function" if callable(given) else str(given),
)
def test_the_branch_is_closed_and_gets_gradients(identifier):
    model = build(identifier)
    before, after = pair(model, random(*SHAPE))
    np.testing.assert_array_equal(after, before)
    new = [layer.name for layer in model.layers[2:]]
    scaled = identifier in SCALED
    normed = getattr(model.get_layer("new"), "wants_norm", True)
    assert new == [
        *["new_norm"] * normed,
        "new",
        *["new_scale"] * scaled,
        "new_add",
    ]
    gradients = weight_gradients(
        keras.Model(model.input, model.outputs[1]), random(*SHAPE)
    )
    ends_in_norm = scaled or identifier in (
        "linear",
        "single_head",
        "single_head_modulation",
        "efficient_local",
    )
    shut = {
        weight.path
        for layer in model.layers[2:]
        for weight in layer.trainable_variables
        if weight.path.endswith("/gamma" if ends_in_norm else "/kernel")
        and not to_numpy(weight).any()
    }
    assert shut, "nothing that starts at zero"
    for path in shut:
        assert np.abs(gradients[path]).max() > 1e-4, path


def test_the_branch_is_open_once_its_last_map_is_not_zero():
    for name in ("kao_qkv", "ylg"):
        model = build(name)
        fill_weights(model.get_layer("new").weights)
        before, after = pair(model, random(*SHAPE))
        assert np.abs(after - before).max() > 1e-2


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("identifier", ["kao_kv", "ylg", SCALED[0]], ids=str)
def test_precision(identifier, policy):
    inputs = keras.Input(SHAPE[1:])
    x = keras.layers.Conv2D(16, 1, dtype=policy)(inputs)
    y = residual_attention(x, identifier, dtype=policy)
    assert x.dtype == y.dtype == policy.removeprefix("mixed_")
    # Large maps: the logits overflow float16, and the branch is zero still.
    before, after = pair(keras.Model(inputs, [x, y]), 100 * random(*SHAPE))
    np.testing.assert_array_equal(after, before)


class ZeroMap(keras.layers.Conv2D):
    """A layer of somebody else's, which knows how to start at zero."""

    def __init__(self, scale, dtype, name):
        zeros = {"kernel_initializer": "zeros"}
        super().__init__(SHAPE[-1], 1, dtype=dtype, name=name, **zeros)

    def start_at_zero(self):
        return True


def test_a_layer_of_ones_own_that_starts_at_zero_gets_no_second_gate():
    """Two zeros in a row would never open."""
    model = build(ZeroMap)
    assert [x.name for x in model.layers[2:]] == ["new_norm", "new", "new_add"]
    gradients = weight_gradients(
        keras.Model(model.input, model.outputs[1]), random(*SHAPE)
    )
    assert np.abs(gradients[model.get_layer("new").kernel.path]).max() > 1e-4


def test_what_starts_at_zero_is_kept(tmp_path):
    """In configurations, copies and files; and so are trained weights."""
    x = random(*SHAPE)
    for name in ("kao_kv", "dense", "ylg"):
        model = build(name)
        copy = keras.models.clone_model(model)
        np.testing.assert_array_equal(*pair(copy, x))
        fill_weights(model.weights)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        for found, expected in zip(
            pair(loaded, x), pair(model, x), strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_a_gate_the_branch_starts_open():
    before, after = pair(build("kao_qkv", gate=None), random(*SHAPE))
    assert np.abs(after - before).max() > 1e-2


def test_open_sizes():
    for identifier in ("kao_qkv", "kao_kv", "dense", "dense_pool"):
        model = build(identifier, (None, None, 16))
        for shape in (SHAPE, (1, 3, 4, 16)):
            np.testing.assert_array_equal(*pair(model, random(*shape)))
    with pytest.raises(ValueError, match="known height and width"):
        build("ylg", (None, None, 16))


def test_momentum():
    for layer in build(SCALED[0], momentum=0.5).layers:
        assert getattr(layer, "momentum", 0.5) == 0.5


def test_errors():
    x = keras.Input((4, 4, 8))
    with pytest.raises(ValueError, match=r"batch, height.*\(None, 4, 8\)"):
        residual_attention(keras.Input((4, 8)), "kao_kv")
    with pytest.raises(ValueError, match="known channels.*None, 4, 4, None"):
        residual_attention(keras.Input((4, 4, None)), "kao_kv")
    with pytest.raises(ValueError, match="must be floats.*int32"):
        residual_attention(keras.Input((4, 4, 8), dtype="int32"), "kao_kv")
    with pytest.raises(ValueError, match="shared.*<KroneckerAttention"):
        residual_attention(x, attention.make("kao_kv"))
    with pytest.raises(ValueError, match="gate.*'zer0'"):
        residual_attention(x, "kao_kv", gate="zer0")
    with pytest.raises(ValueError, match="nearest: kao_kv"):
        residual_attention(x, "kao_kw")
    with pytest.raises(ValueError, match=r"keep the shape.*\(None, 4, 4, 9\)"):
        residual_attention(x, lambda: keras.layers.Conv2D(9, 1))
