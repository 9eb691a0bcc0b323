"""Attention along the edges of a superconcentrator: O(n), nothing dense.

"Your Local GAN" (Daras et al., CVPR 2020) asks of its patterns that each input
reach each output. Along a superconcentrator any k tokens also reach any k
others through k separate paths, so that nothing has to squeeze through a few
summary tokens, and O(n) edges suffice. The paper has no such layer; this one
is ours.
"""

import math
from functools import partial

import keras
import numpy as np
from keras import ops

from kanets.attention.base import AttentionLayer
from kanets.attention.checks import check_at_least, check_divides
from kanets.attention.esa import esa_order
from kanets.attention.grid import cells, spread
from kanets.attention.sparse import (
    IMPLEMENTATIONS,
    dense_weights,
    pattern_attention,
)
from kanets.attention.superconcentrator import Superconcentrator

_STEPS = ("down", "base", "up")
_MAPS = ("query", "key", "value", "output")


@keras.saving.register_keras_serializable(package="ylg")
class SuperconcentratorAttention(AttentionLayer):
    """Steps of sparse attention along a `Superconcentrator` of n tokens.

    With x the tokens of one level, m its middle vertices, each of which stands
    on the token floor(j n / m), and f the same on the m tokens:

        z = x[stands] + attend_down(x[stands], x)    m queries, n keys
        y = f(z)                                     complete for few tokens
        out = x + attend_up(x, [y, x])               n queries, m + n keys

        attend(q, k) = o(Attn(query(norm(q)), key(norm(k)), value(norm(k))))

    along the edges of the graph alone. The complete base step is z + attend_
    base(z, z). All down steps share one set of weights (a layer
    normalisation and the four maps), and so do all up steps: the weights do
    not depend on n. Tokens of a picture are numbered in ESA order.

    Args:
        num_heads: N, a divisor of the channels.
        use_bias: whether the maps have a bias.
        seed: of the graph.
        certificate: None, or `certificate` of a `Superconcentrator`. A built
            layer has that of its graph in its configuration, so that a copy
            or a loaded layer compares its graph with it, and the graph is
            certified where it is first built. It is of one number of tokens;
            a layer of another certifies its own.
        scale: factor of the logits: "rsqrt" is 1/sqrt(C/N), None is none, or
            a number.

    Call arguments:
        query: float tensor (B, n, C) or (B, H, W, C).
        return_attention_scores: also return what all steps come to, (B, N, n,
            n) in float32, O(n²) memory: for looking. It is the attention
            rollout of Abnar and Zuidema, head by head: the product of the
            steps' weights, where each token is half what it was before and
            half what it looks at.

    Returns:
        Tensor of the shape of the query, and the rollout on request. Softmax
        and normalisation run in float32 in every precision.

    Raises:
        ValueError: `num_heads`, `seed` or `scale` out of range; sizes that
            are unknown, or another number of tokens than the layer was built
            for; channels that `num_heads` does not divide; a certificate of
            another graph; a mask.

    Cost: O(n C² + n C) time and O(n C) memory, in O(log n) steps one after
    the other: 7 for n = 64, 27 for n = 1024.

    Example:

    >>> layer = SuperconcentratorAttention(num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Daras et al., "Your Local GAN", CVPR 2020, section 3; the graph
    is that of `Superconcentrator`. Abnar and Zuidema, "Quantifying Attention
    Flow in Transformers", ACL 2020, section 3.
    """

    implementations = IMPLEMENTATIONS

    def __init__(
        self,
        num_heads=1,
        use_bias=False,
        seed=0,
        certificate=None,
        scale="rsqrt",
        **kwargs,
    ):
        super().__init__(num_heads, scale, **kwargs)
        self.seed = check_at_least(0, seed=seed)
        self.use_bias = use_bias
        self.certificate = certificate

    def build(self, input_shape):
        tokens, channels = self._sizes(input_shape)
        check_divides(self.num_heads, channels)
        certificate = self.certificate
        if isinstance(certificate, dict) and certificate.get("n") != tokens:
            certificate = None
        self.graph = Superconcentrator(
            tokens, seed=self.seed, certificate=certificate
        )
        self._parts = {}
        for step in _STEPS if self.graph.down else ("base",):
            self._add(keras.layers.LayerNormalization, f"{step}_norm", channels)
            for name in _MAPS:
                self._add(
                    keras.layers.Dense,
                    f"{step}_{name}",
                    channels,
                    units=channels,
                    use_bias=self.use_bias,
                )
        self.built = True

    def _add(self, kind, name, channels, **arguments):
        part = kind(dtype=self.dtype_policy, name=name, **arguments)
        part.build((None, None, channels))
        self._parts[name] = part

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        shape = tuple(inputs.shape)
        grid = shape[1:-1]
        order = esa_order(grid if len(grid) == 2 else grid[0])
        back = np.argsort(order)
        weights = [] if return_attention_scores else None
        x = ops.reshape(inputs, (-1, len(order), shape[-1]))
        x = ops.take(x, order, axis=1)
        x = self._steps(x, 1, partial(self._attend, weights=weights))
        x = ops.reshape(ops.take(x, back, axis=1), (-1, *shape[1:]))
        if not return_attention_scores:
            return x
        scores = self._rollout(weights)
        return x, ops.take(ops.take(scores, back, axis=2), back, axis=3)

    def _steps(self, x, axis, attend):
        """The formula, for what lies along the tokens of an axis."""
        levels = []
        for pattern in self.graph.down:
            n, m = pattern.num_keys, pattern.num_queries
            stands = ops.take(x, np.arange(m) * n // m, axis=axis)
            levels.append(x)
            x = attend("down", stands, x, pattern)
        x = attend("base", x, x, self.graph.base)
        for pattern in self.graph.up:
            level = levels.pop()
            keys = ops.concatenate([x, level], axis=axis)
            x = attend("up", level, keys, pattern)
        return x

    def _attend(self, step, x, keys, pattern, weights):
        """x + attend(x, keys), (B, n_q, C) and (B, n_k, C) -> (B, n_q, C).

        The weights, (B, N, n_q, n_k), are added to a list, if one is given.
        """
        norm, query, key, value, output = (
            self._parts[f"{step}_{name}"] for name in ("norm", *_MAPS)
        )
        head_dim = x.shape[-1] // self.num_heads
        normed, keys = norm(x), norm(keys)
        attended = pattern_attention(
            *(
                ops.reshape(t, (-1, t.shape[1], self.num_heads, head_dim))
                for t in (query(normed), key(keys), value(keys))
            ),
            pattern,
            scale=self.scale,
            implementation=self.implementation,
            return_weights=weights is not None,
        )
        if weights is not None:
            attended, found = attended
            weights.append(dense_weights(found, pattern))
        return x + output(ops.reshape(attended, (-1, *x.shape[1:])))

    def _rollout(self, weights):
        """What the steps come to together, (B, N, n, n)."""
        steps = iter(weights)
        heads = ops.zeros_like(weights[0][:, :, :1, :1])
        itself = heads + ops.eye(self.graph.n, dtype=heads.dtype)
        return self._steps(
            itself, 2, lambda _, x, keys, __: (x + next(steps) @ keys) / 2
        )

    def check_inputs(self, inputs, mask=None):
        super().check_inputs(inputs, mask)
        tokens, _ = self._sizes(inputs.shape)
        if self.built and tokens != self.graph.n:
            raise ValueError(
                "The graph belongs to one number of tokens. Received: "
                f"inputs.shape={tuple(inputs.shape)}, built for "
                f"{self.graph.n} tokens"
            )

    def _token_counts(self, grid):
        return cells(grid), cells(grid)

    def _maps_at(self, scores, cell, grid):
        return spread(scores[:, :, cell[0] * grid[1] + cell[1]], grid, 1)

    def _sizes(self, shape):
        if len(shape) not in (3, 4) or None in shape[1:]:
            raise ValueError(
                "The input must be (batch, n, channels) or (batch, height, "
                "width, channels) with known sizes. "
                f"Received: input_shape={tuple(shape)}"
            )
        return math.prod(shape[1:-1]), shape[-1]

    def get_config(self):
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "seed": self.seed,
            "certificate": (
                self.graph.certificate if self.built else self.certificate
            ),
        }
