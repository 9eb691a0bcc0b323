"""One place for each rule of an argument."""

import pytest

from kanets import layers
from kanets.attention import (
    DenseAttention,
    KroneckerAttention,
    LocalSparseAttention2D,
    NonLocalAttention2D,
    SuperconcentratorAttention,
)
from kanets.attention.checks import (
    check_at_least,
    check_choice,
    check_positive,
)
from ylg.layers import ConditionalBatchNormalization


@pytest.mark.parametrize("value", [True, False, 0, -1, 1.0, "1", None])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (KroneckerAttention, "num_heads"),
        (DenseAttention, "num_heads"),
        (DenseAttention, "pool_size"),
        (LocalSparseAttention2D, "num_heads"),
        (NonLocalAttention2D, "pool_size"),
        (SuperconcentratorAttention, "num_heads"),
        (layers.AttnModule, "filters"),
        (ConditionalBatchNormalization, "num_classes"),
        (check_positive, "anything"),
    ],
)
def test_a_positive_integer_is_no_truth_value(make, name, value):
    with pytest.raises(ValueError, match=f"{name} must .*: {name}={value!r}"):
        make(**{name: value})


def test_the_first_that_is_wrong_is_named():
    check_positive(width=1, height=2)
    check_at_least(0, seed=0)
    with pytest.raises(ValueError, match="height must be a pos.*: height=0"):
        check_positive(width=1, height=0)
    with pytest.raises(ValueError, match="seed must be an integer >= 0.*=-1"):
        check_at_least(0, seed=-1)
    with pytest.raises(ValueError, match='mode must be "kv" or "qkv".*=\\[1]'):
        check_choice({"kv": 1, "qkv": 2}, mode=[1])
