"""Hashed attention with the weights of a golden file; see `references`."""

import keras
import numpy as np

from kanets import attention
from kanets.attention.clusters import Clusters, cluster_attention, split
from kanets.attention.core import merge_heads
from kanets.attention.lsh import with_neighbours


def _smyrf(case, arrays):
    layer = attention.SMYRFAttention(
        int(arrays["k_cluster"]),
        int(arrays["n_hashes"]),
        projections="",
        scale=1 / float(arrays["norm_factor"]),
    )
    layer.build(arrays["queries"].shape)
    layer.hashes.assign(arrays["alpha"])

    def call(queries, keys, values):
        return _clustered(layer, queries, keys, values)

    return layer, call


def _reformer(case, arrays):
    if "query.weight" in arrays:
        return _local(arrays)
    rotations = arrays.get("rotations")
    buckets = arrays["num_buckets"].tolist()
    layer = attention.LSHAttention(
        # What needs no hashes stores none.
        buckets if rotations is not None else 2,
        int(arrays["chunk_length"]),
        int(arrays["chunks_before"]),
        int(arrays["chunks_after"]),
        int(arrays["num_hashes"]),
        bool(arrays["causal"]),
        num_heads=int(arrays["num_heads"]),
        key_dim=int(arrays["head_size"]),
        projections="qvo",
    )
    layer.build(arrays["hidden_states"].shape)
    if rotations is not None:
        layer.hashes.assign(rotations)
    for name in ("query_key", "value"):
        layer._maps[name].kernel.assign(arrays[f"{name}.weight"].T)

    def call(hidden_states, mask=None):  # without the last map
        query, value = (
            layer._maps[name](hidden_states) for name in ("query_key", "value")
        )
        return _clustered(layer, query, None, value, mask)

    return layer, call


def _clustered(layer, query, key, value, mask=None):
    return layer.clustered(
        query,
        key,
        value,
        layer.hashes,
        mask,
        num_heads=layer.num_heads,
        scale=layer.scale,
        return_attention_scores=False,
    )


class _Local(keras.layers.Layer):
    """Chunks in the order of the tokens: the core of hashed attention."""

    def __init__(self, arrays):
        super().__init__()
        self.supports_masking = True
        names = ("num_heads", "head_size", "chunk_length")
        self.heads, self.size, self.chunk = (int(arrays[n]) for n in names)
        names = ("chunks_before", "chunks_after", "causal")
        self.before, self.after, self.causal = (int(arrays[n]) for n in names)
        self.maps = []
        for name in ("query", "key", "value"):
            kernel = arrays[f"{name}.weight"].T
            self.maps.append(self.add_weight(kernel.shape, name=name))
            self.maps[-1].assign(kernel)

    def call(self, x, mask=None):
        batch, length = x.shape[:2]
        query, key, value = (
            split(keras.ops.matmul(x, kernel), self.heads)
            for kernel in self.maps
        )
        tokens = np.broadcast_to(
            np.arange(length, dtype="int32"), (batch, self.heads, length)
        )
        present = None
        if mask is not None:
            present = keras.ops.cast(mask, "bool")[:, None]
            present = keras.ops.broadcast_to(present, tokens.shape)
        chunks = Clusters(
            keras.ops.convert_to_tensor(tokens),
            present,
            keras.ops.convert_to_tensor(tokens[:, :, None]),
            self.chunk,
        )
        found, _ = cluster_attention(
            query,
            key,
            value,
            chunks,
            with_neighbours(chunks, self.before, self.after),
            self.size**-0.5,
            causal=bool(self.causal),
        )
        return merge_heads(found)


def _local(arrays):
    layer = _Local(arrays)
    return layer, lambda hidden_states, mask=None: layer(
        hidden_states, mask=mask
    )


KINDS = {"smyrf": _smyrf, "reformer_hf": _reformer}
