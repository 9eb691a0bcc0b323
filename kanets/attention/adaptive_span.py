"""Attention whose reach is learned, head by head.

Sukhbaatar et al., "Adaptive Attention Span in Transformers", ACL 2019. With z
the span of a head and x how far a key is from its query,

    m_z(x) = clip((R + z - x) / R, 0, 1)
    a_ij   = m_z(x_ij) exp(s_ij) / sum over j of m_z(x_ij) exp(s_ij)

so that keys beyond z + R count nothing, and are not computed where z is
known. The paper's is of sequences, in one direction (`causal_span`); here
keys lie around their query on a grid of any number of axes, and x is the
Chebyshev distance, max |j - i| over the axes: one number a head, as in the
paper, and the cells it leaves are a square, which is what is cut out. (A span
an axis would leave rectangles, and double what is learned.)

Letters: B batch, N heads, C channels, D size of a head, n cells, R ramp, S
greatest span.
"""

import contextlib
import math

import keras
import numpy as np
from keras import ops

from kanets import compat
from kanets.attention.base import GridAttention, fresh
from kanets.attention.checks import (
    check_choice,
    check_fraction,
    check_positive,
)
from kanets.attention.grid import cells, spread
from kanets.attention.relative import RelativePositions
from kanets.attention.span_operator import adaptive_span_attention, unit

SPANS = ("adaptive", "dynamic", "fixed")


def _largest(span):
    """The largest entry of a tensor; None of none, or in a traced graph."""
    try:
        largest = float(np.max(ops.convert_to_numpy(span), initial=-math.inf))
    except (NotImplementedError, TypeError):
        return None
    return largest if math.isfinite(largest) else None


class UnitInterval(keras.constraints.Constraint):
    """Keeps a weight within 0 and 1; Keras below 3.15 takes no function."""

    def __call__(self, w):
        return unit(w)


@keras.saving.register_keras_serializable(package="kanets")
class AdaptiveSpanAttention(GridAttention):
    """Attention of cells to those around them, as far as each head learns.

    The span z of a head is a fraction of `max_span` in a variable that
    gradients reach through the ramp, kept within 0 and 1, or a function of
    the cell that looks, sigmoid(v x + b) ("dynamic"). Cells at a Chebyshev
    distance of `z max_span + ramp` or more count nothing. Logits have Shaw's
    relative positions, q (k + a), a table an axis, shared by the heads.

    Long spans cost `span_penalty` each cell: a loss of the layer, among
    `model.losses`, which `fit` adds (a GAN's steps, which have losses of their
    own alone, do not).

    What no head reaches is not computed where z can be read: in eager calls,
    and in what is traced within `trimmed_spans(model)`, as an export of
    `kanets.export_savedmodel` is. A graph that is traced otherwise, as those
    of `fit` and `predict`, reaches as far as `max_span`, since z changes
    after it is made.

    Args:
        max_span: S, the greatest distance, in cells.
        ramp: R, how many cells the mask takes from 1 to 0.
        span: "adaptive", a number a head; "dynamic", a number a head and
            cell; or "fixed", S for all.
        initial_span: of "adaptive": z at first, as a fraction of S. The
            ramp is seen nevertheless.
        span_penalty: loss of a cell of span, averaged over the heads. The
            default is the paper's, 2e-6 of 8192 steps, for S = 7.
        num_heads, projections, key_dim, scale, use_bias, kernel_initializer,
            kernel_regularizer, output_initializer: as in
            `KroneckerAttention`; the initializer is that of the tables, too.

    Call arguments:
        query: float tensor (B, *grid, C); sizes may be None.
        mask: optional bool tensor (B, *grid), True where valid.
        return_attention_scores: also return the weights (B, N, n, n).

    Returns:
        Tensor (B, *grid, C), and the weights on request. Softmax and mask
        run in float32 in every precision.

    Raises:
        ValueError: an argument out of range, named with its value; otherwise
            as in `KroneckerAttention`.

    Cost: O(n (2 r + 1)^axes C) time and, times N / C, memory, where r is S, or
    min(S, z S + R) of the largest z where that is known; never more than
    dense attention.

    Example:

    >>> layer = AdaptiveSpanAttention(max_span=5, num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Sukhbaatar et al., ACL 2019, sections 2.2 and 2.3; Shaw et
    al., NAACL 2018. The code of the former is facebookresearch/adaptive-span.
    """

    def __init__(
        self,
        max_span=7,
        ramp=2,
        span="adaptive",
        initial_span=0.0,
        span_penalty=2e-3,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.max_span, self.ramp = check_positive(max_span=max_span, ramp=ramp)
        check_choice(SPANS, span=span)
        check_fraction(initial_span=initial_span, span_penalty=span_penalty)
        self.span = span
        self.initial_span = initial_span
        self.span_penalty = span_penalty
        self._at_trace = None  # the largest z in cells, of `trimmed_spans`

    def build(self, input_shape):
        super().build(input_shape)
        channels = input_shape[-1]
        size = self.key_dim
        if size is None:
            size = channels // self.num_heads
        low, high = self._offsets()
        self.positions = [
            self.add_weight(
                shape=(high - low + 1, size),
                initializer=fresh(self.kernel_initializer),
                name=f"positions_{axis}",
            )
            for axis in range(len(input_shape) - 2)
        ]
        if self.span == "adaptive":
            self.z = self.add_weight(
                shape=(self.num_heads,),
                initializer=keras.initializers.Constant(self.initial_span),
                constraint=UnitInterval(),
                autocast=False,
                name="span",
            )
        elif self.span == "dynamic":
            self.span_kernel, self.span_bias = (
                self.add_weight(
                    shape=shape,
                    initializer=initializer,
                    autocast=False,
                    name=name,
                )
                for name, shape, initializer in (
                    ("span_kernel", (channels, self.num_heads), "zeros"),
                    ("span_bias", (self.num_heads,), "zeros"),
                )
            )

    def attend(
        self, inputs, mask, training, return_attention_scores, **context
    ):
        span = self._spans(inputs, mask)
        low, _ = self._offsets()
        return adaptive_span_attention(
            inputs,
            num_heads=self.num_heads,
            scale=self.scale,
            mask=mask,
            return_attention_scores=return_attention_scores,
            reach=self._reach(span, training),
            span=span,
            ramp=self.ramp,
            relative_keys=[
                RelativePositions(table, low) for table in self.positions
            ],
            **context,
            **self._maps,
        )

    def spans(self):
        """z of each head as learned, in cells: NumPy array (N,).

        Raises:
            ValueError: the layer is not built, or not "adaptive".
        """
        if not self.built or self.span != "adaptive":
            raise ValueError(
                'Spans are learned by a built layer with span="adaptive". '
                f"Received: span={self.span!r}, built={self.built}"
            )
        return self.max_span * np.clip(ops.convert_to_numpy(self.z), 0, 1)

    def _spans(self, inputs, mask):
        """z in cells, (N,) or (B, *grid, N), or None; adds its loss."""
        if self.span == "fixed":
            return None
        if self.span == "adaptive":
            span = unit(ops.convert_to_tensor(self.z))
        else:
            x = ops.cast(inputs, self.span_kernel.dtype)
            span = ops.tensordot(x, ops.convert_to_tensor(self.span_kernel), 1)
            span = ops.sigmoid(span + ops.convert_to_tensor(self.span_bias))
        span = self.max_span * span
        if self.span_penalty:
            self.add_loss(self.span_penalty * _mean(span, mask))
        return span

    def _offsets(self):
        """The least and the greatest offset that the tables hold."""
        return -self.max_span, self.max_span

    def _reach(self, span, training):
        """The greatest distance that is to be computed."""
        low, high = self._offsets()
        reach = high - low if self._causal else high
        if span is None:
            return reach
        largest = _largest(span)
        if largest is None and not training:
            largest = self._at_trace
        if largest is None:
            return reach
        return min(reach, math.ceil(largest + self.ramp) - 1)

    _causal = False

    def _token_counts(self, grid):
        return cells(grid), cells(grid)

    def _maps_at(self, scores, cell, grid):
        return spread(scores[:, :, cell[0] * grid[1] + cell[1]], grid, 1)

    def get_config(self):
        return {
            **super().get_config(),
            "max_span": self.max_span,
            "ramp": self.ramp,
            "span": self.span,
            "initial_span": self.initial_span,
            "span_penalty": self.span_penalty,
        }


@contextlib.contextmanager
def trimmed_spans(model):
    """Has what is traced within compute no more than spans need now.

    Of inference alone: what is traced for training has the whole reach. What
    was traced keeps the reach that it was traced with, so spans should not
    grow after that; `predict` and `evaluate` are traced anew, before and
    after. Where every input has its own span ("dynamic") nothing is trimmed.

    Args:
        model: a Keras model or layer.

    Example:

    >>> with kanets.attention.trimmed_spans(model):
    ...     model.export("folder")
    """
    layers = [
        layer
        for layer in compat.all_layers(model)
        if isinstance(layer, AdaptiveSpanAttention)
        and layer.built
        and layer.span == "adaptive"
    ]
    for layer in layers:
        layer._at_trace = float(layer.spans().max())
    _forget_traces(model)
    try:
        yield
    finally:
        for layer in layers:
            layer._at_trace = None
        _forget_traces(model)


def _forget_traces(model):
    if isinstance(model, keras.Model):
        model.predict_function = model.test_function = None


def _mean(span, mask):
    """The mean, where a mask (B, *grid) of spans a cell is True."""
    if mask is None or len(span.shape) == 1:
        return ops.mean(span)
    there = ops.expand_dims(ops.cast(mask, span.dtype), -1)
    count = ops.maximum(ops.sum(there), 1.0) * span.shape[-1]
    return ops.sum(span * there) / count
