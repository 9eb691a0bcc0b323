"""What is promised not to grow as n²: the memory of forward and backward."""

import keras
import pytest

from kanets import attention
from tests.backends import BACKEND

# Every cell attends to every cell, or to a fixed share of them.
QUADRATIC = {
    *("dense", "dense_pool", "multi_query", "single_head", "non_local"),
    *("single_head_modulation", "spatial_reduction"),
}
QUICK = {"kao_kv", "kao_rectified", "neighborhood", "squeeze_excitation"}


def peak(name, side):
    """Bytes of a layer and its gradient in XLA, for (1, side, side, 16)."""
    import jax

    layer = attention.make(name)
    x = jax.random.normal(jax.random.key(0), (1, side, side, 16))
    layer.build(x.shape)
    trained = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]

    def total(trained, x):
        y, _ = layer.stateless_call(trained, others, x)
        return keras.ops.sum(y)

    program = jax.jit(jax.grad(total, (0, 1))).lower(trained, x).compile()
    found = program.memory_analysis()
    given = found.argument_size_in_bytes + found.output_size_in_bytes
    return found.temp_size_in_bytes + given


@pytest.mark.skipif(BACKEND != "jax", reason="XLA says it of a JAX program")
@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in attention.names()
    ],
)
def test_memory_follows_the_cells(name):
    """Four times the cells: 4 times as much, 8 of O(n sqrt n), 16 of O(n²)."""
    growth = peak(name, 64) / peak(name, 32)
    if name in QUADRATIC:
        assert growth > 10
    else:
        assert growth < 9
