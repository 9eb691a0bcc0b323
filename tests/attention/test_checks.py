"""One place for each rule of an argument."""

import numpy as np
import pytest

from kanets import layers
from kanets.attention import (
    AdditiveAttention,
    CausalSpanAttention,
    DenseAttention,
    EfficientChannelAttention,
    HierarchicalAttention,
    KroneckerAttention,
    LocalSparseAttention2D,
    LSHAttention,
    MultiQueryAttention,
    NeighborhoodAttention,
    NonLocalAttention2D,
    SMYRFAttention,
    SpatialReductionAttention,
    SuperconcentratorAttention,
)
from kanets.attention.checks import (
    check_at_least,
    check_choice,
    check_positive,
    check_positive_or_none,
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


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (AdditiveAttention, {"units": 4, "seed": 1}),
        (CausalSpanAttention, {"max_span": 4, "ramp": 2}),
        (EfficientChannelAttention, {"kernel_size": 3}),
        (HierarchicalAttention, {"windows": 2, "units": 4, "num_heads": 2}),
        (KroneckerAttention, {"projections": "qkvo", "key_dim": 4}),
        (LSHAttention, {"num_buckets": [2, 4], "chunks_after": 1, "seed": 1}),
        (MultiQueryAttention, {"key_stride": 2, "value_dim": 4}),
        (SMYRFAttention, {"cluster_size": 4, "num_rounds": 2, "seed": 1}),
        (SpatialReductionAttention, {"key_stride": 2, "key_grid": 2}),
        (layers.AttentionDecoder, {"vocabulary_size": 5, "seed": 1}),
    ],
)
def test_integers_of_numpy_are_kept_as_those_of_python(layer, arguments):
    def of_numpy(value):
        if isinstance(value, list):
            return list(np.array(value))
        return value if isinstance(value, str) else np.int64(value)

    given = {name: of_numpy(value) for name, value in arguments.items()}
    config = layer(**given).get_config()
    for name, value in arguments.items():
        assert repr(config[name]) == repr(value)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (LSHAttention, "causal"),
        (NeighborhoodAttention, "clip"),
        (SMYRFAttention, "fresh_hashes"),
    ],
)
def test_a_truth_value_is_no_word(layer, name):
    with pytest.raises(ValueError, match=f"{name} must be True.*{name}='no'"):
        layer(**{name: "no"})
    found = layer(**{name: np.bool_(True)}).get_config()[name]
    assert found is True


def test_the_first_that_is_wrong_is_named():
    assert check_positive(width=1, height=2) == [1, 2]
    assert check_positive_or_none(width=None, height=np.int8(2)) == [None, 2]
    assert check_at_least(0, seed=0) == 0
    with pytest.raises(ValueError, match="height must be a pos.*: height=0"):
        check_positive(width=1, height=0)
    with pytest.raises(ValueError, match="seed must be an integer >= 0.*=-1"):
        check_at_least(0, seed=-1)
    with pytest.raises(ValueError, match="seed must be an integer or.*=1.5"):
        LSHAttention(seed=1.5)
    with pytest.raises(ValueError, match='mode must be "kv" or "qkv".*=\\[1]'):
        check_choice({"kv": 1, "qkv": 2}, mode=[1])
