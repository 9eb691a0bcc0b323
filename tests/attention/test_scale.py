"""One rule of `scale`, wherever it is taken."""

import functools

import numpy as np
import pytest

from kanets import ops
from kanets.layers import AttnModule, DenseAttention, KroneckerAttention
from tests.backends import to_numpy
from tests.layer_checks import random
from ylg import patterns
from ylg.layers import LocalSparseAttention2D, NonLocalAttention2D
from ylg.ops import pattern_attention
from ylg.ops.scale import check_scale, logit_scale

GRID, TOKENS = random(1, 2, 3, 4), random(1, 6, 2, 4)
ALL = {
    "attention": functools.partial(ops.attention, *[random(1, 3, 4)] * 3),
    "kao_kv": functools.partial(ops.kao_kv, GRID),
    "kao_qkv": functools.partial(ops.kao_qkv, GRID),
    "dense_attention": functools.partial(ops.dense_attention, GRID),
    "pattern_attention": functools.partial(
        pattern_attention, *[TOKENS] * 3, patterns.left_floor(6)
    ),
    "KroneckerAttention": KroneckerAttention,
    "DenseAttention": DenseAttention,
    "LocalSparseAttention2D": LocalSparseAttention2D,
    "NonLocalAttention2D": NonLocalAttention2D,
    "AttnModule": lambda scale: AttnModule(
        8, attention="ylg", attention_scale=scale
    ),
}


@pytest.mark.parametrize("scale", (False, True, np.bool_(False), "sqrt", [1]))
@pytest.mark.parametrize("name", ALL)
def test_what_is_no_scale_is_refused(name, scale):
    with pytest.raises(ValueError) as error:
        ALL[name](scale=scale)
    assert str(error.value) == (
        f'scale must be None, "rsqrt" or a number. Received: scale={scale!r}'
    )


@pytest.mark.parametrize(
    "scale, factor",
    ((None, 1.0), ("rsqrt", 0.5), (0, 0.0), (2, 2.0), (np.float32(3), 3.0)),
)
def test_what_a_scale_stands_for(scale, factor):
    check_scale(scale)
    found = logit_scale(scale, head_dim=4)
    assert (type(found), found) == (float, factor)
    if factor:  # no query can tell its keys apart at 0
        query = TOKENS * np.float32(factor)
        expected = pattern_attention(
            query, TOKENS, TOKENS, patterns.left_floor(6)
        )
        output = ALL["pattern_attention"](scale=scale)
        np.testing.assert_allclose(
            to_numpy(output), to_numpy(expected), atol=1e-6
        )
