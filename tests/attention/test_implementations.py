"""What computes an operator is chosen where it runs, and is never saved."""

import json

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import implementations
from kanets.attention.implementations import chosen
from tests.backends import BACKEND, to_numpy
from tests.layer_checks import random

LAYERS = {
    "kronecker": lambda **more: attention.KroneckerAttention("kv", **more),
    "sparse": lambda **more: attention.LocalSparseAttention2D(
        2, residual=False, **more
    ),
}
needs_jax = pytest.mark.skipif(BACKEND != "jax", reason="Pallas is JAX's")


@pytest.fixture(autouse=True)
def as_it_was():
    before = implementations._default
    yield
    assert implementations._default == before


def test_a_scope_ends():
    assert chosen("auto", implementations.NAMES) == "xla"
    with attention.implementation("reference"):
        assert chosen("auto", implementations.NAMES) == "reference"
        assert chosen("auto", ("auto", "xla")) == "xla"  # has no other
        assert chosen("xla", implementations.NAMES) == "xla"
        with attention.implementation("auto"):
            assert chosen("auto", implementations.NAMES) == "xla"
        assert chosen("auto", implementations.NAMES) == "reference"
    with pytest.raises(KeyError), attention.implementation("reference"):
        raise KeyError
    assert chosen("auto", implementations.NAMES) == "xla"


def test_without_a_scope_it_is_the_default():
    attention.implementation("reference")
    assert chosen("auto", implementations.NAMES) == "reference"
    attention.implementation("auto")
    assert chosen("auto", implementations.NAMES) == "xla"


def test_a_scope_is_what_runs(monkeypatch):
    from kanets.attention import sparse

    called = []

    def reference(*arguments):
        called.append(arguments)
        return sparse.reference.attention(*arguments)

    monkeypatch.setitem(sparse._ATTEND, "reference", reference)
    layer, x = LAYERS["sparse"](), random(1, 4, 4, 16)
    expected = to_numpy(layer(x))
    with attention.implementation("reference"):
        found = to_numpy(layer(x))
    assert called
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has kernels")
def test_no_scope_for_what_cannot_run():
    with pytest.raises(ValueError, match=f"JAX backend.*backend='{BACKEND}'"):
        attention.implementation("pallas")
    assert "needs the JAX backend" in attention.why_no_kernel()


def test_an_unknown_one_is_named():
    with pytest.raises(ValueError, match="implementation='fast'"):
        attention.implementation("fast")


@needs_jax
@pytest.mark.parametrize("name", LAYERS)
def test_kernels_run_in_their_scope(name, monkeypatch):
    from kanets.attention.kernels import calls

    made, make = [], calls.pallas_call

    def count(*arguments, **options):
        made.append(arguments)
        return make(*arguments, **options)

    monkeypatch.setattr(calls, "pallas_call", count)
    layer, x = LAYERS[name](), random(1, 6, 5, 16, seed=7)
    expected = to_numpy(layer(x))
    assert not made
    with attention.implementation("pallas"):
        found = to_numpy(layer(x))
    assert made
    np.testing.assert_allclose(found, expected, atol=1e-5)


@needs_jax
def test_a_scope_gives_way_where_no_kernel_fits():
    layer, mask = LAYERS["kronecker"](), np.ones((1, 6, 5), bool)
    x = random(1, 6, 5, 16)
    assert attention.why_no_kernel(x, rank=4) is None
    assert "mask=given" in attention.why_no_kernel(x, mask, rank=4)
    assert "x.shape=(6, 5, 16)" in attention.why_no_kernel(x[0], rank=4)
    with attention.implementation("pallas"):
        found = to_numpy(layer(x, mask=mask))
        assert attention.DenseAttention()(x).shape == x.shape
    np.testing.assert_allclose(found, to_numpy(layer(x)), atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_not_saved(name):
    with pytest.warns(DeprecationWarning, match=r"attention.implementation\('"):
        layer = LAYERS[name](implementation="pallas")
    config = json.loads(json.dumps(layer.get_config()))
    assert "implementation" not in config
    for saved in (config, {**config, "implementation": "pallas"}):
        copy = type(layer).from_config(saved)
        assert copy.implementation == "auto"
        copy(random(1, 4, 4, 16))


def test_dense_attention_has_no_kernel():
    with pytest.raises(ValueError, match="implementation='pallas'"):
        attention.DenseAttention(implementation="pallas")


def test_a_loaded_layer_runs_where_it_is(tmp_path):
    """Also on a backend that has not what it was made with."""
    inputs = keras.Input((4, 4, 16))
    with pytest.warns(DeprecationWarning):
        layer = LAYERS["kronecker"](implementation="xla")
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = random(2, 4, 4, 16)
    np.testing.assert_allclose(
        to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-6
    )
