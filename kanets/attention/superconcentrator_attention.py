"""Attention along the edges of a superconcentrator: O(n), nothing dense.

"Your Local GAN" (Daras et al., CVPR 2020) asks of its patterns that each input
reach each output. Along a superconcentrator any k tokens also reach any k
others through k separate paths, so that nothing has to squeeze through a few
summary tokens, and O(n) edges suffice. The paper has no such layer; this one
is ours.
"""

import math

import keras
import numpy as np
from keras import ops

from kanets.attention.checks import check_at_least, check_divides
from kanets.attention.esa import esa_order
from kanets.attention.sparse import pattern_attention
from kanets.attention.superconcentrator import Superconcentrator

_STEPS = ("down", "base", "up")
_MAPS = ("query", "key", "value", "output")


@keras.saving.register_keras_serializable(package="ylg")
class SuperconcentratorAttention(keras.layers.Layer):
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

    Call arguments:
        inputs: float tensor (B, n, C) or (B, H, W, C).

    Returns:
        Tensor of the shape of the inputs. Logits are scaled by 1/sqrt(C/N);
        softmax and normalisation run in float32 in every precision.

    Raises:
        ValueError: `num_heads` or `seed` out of range; sizes that are
            unknown, or another number of tokens than the layer was built for;
            channels that `num_heads` does not divide; a certificate of
            another graph.

    Cost: O(n C² + n C) time and O(n C) memory, in O(log n) steps one after
    the other: 7 for n = 64, 27 for n = 1024.

    Example:

    >>> layer = SuperconcentratorAttention(num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Daras et al., "Your Local GAN", CVPR 2020, section 3; the graph
    is that of `Superconcentrator`.
    """

    def __init__(
        self, num_heads=1, use_bias=False, seed=0, certificate=None, **kwargs
    ):
        super().__init__(**kwargs)
        check_at_least(1, num_heads=num_heads)
        check_at_least(0, seed=seed)
        self.num_heads = num_heads
        self.use_bias = use_bias
        self.seed = seed
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

    def call(self, inputs):
        shape = tuple(inputs.shape)
        tokens, channels = self._sizes(shape)
        if tokens != self.graph.n:
            raise ValueError(
                "The graph belongs to one number of tokens. Received: "
                f"inputs.shape={shape}, built for {self.graph.n} tokens"
            )
        if len(shape) == 3:
            return self._steps(inputs)
        order = esa_order(shape[1:3])
        x = ops.reshape(inputs, (-1, tokens, channels))
        x = self._steps(ops.take(x, order, axis=1))
        x = ops.take(x, np.argsort(order), axis=1)
        return ops.reshape(x, (-1, *shape[1:]))

    def _steps(self, x):
        levels = []
        for pattern in self.graph.down:
            n, m = pattern.num_keys, pattern.num_queries
            stands = ops.take(x, np.arange(m) * n // m, axis=1)
            levels.append(x)
            x = self._attend("down", stands, x, pattern)
        x = self._attend("base", x, x, self.graph.base)
        for pattern in self.graph.up:
            level = levels.pop()
            keys = ops.concatenate([x, level], axis=1)
            x = self._attend("up", level, keys, pattern)
        return x

    def _attend(self, step, x, keys, pattern):
        """x + attend(x, keys), (B, n_q, C) and (B, n_k, C) -> (B, n_q, C)."""
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
            scale="rsqrt",
        )
        return x + output(ops.reshape(attended, (-1, *x.shape[1:])))

    def _sizes(self, shape):
        if len(shape) not in (3, 4) or None in shape[1:]:
            raise ValueError(
                "The input must be (batch, n, channels) or (batch, height, "
                "width, channels) with known sizes. "
                f"Received: input_shape={tuple(shape)}"
            )
        return math.prod(shape[1:-1]), shape[-1]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "use_bias": self.use_bias,
            "seed": self.seed,
            "certificate": (
                self.graph.certificate if self.built else self.certificate
            ),
        }
