"""Beam search: the likeliest sequences of what tells them step by step.

At every step the W best beginnings are continued by every token, and the W
best of these are kept, as measured by

    log p(y) / |y|^a

with |y| the tokens of y, its end included: without the division short
sequences would win, since each token costs. It is Wu et al., "Google's Neural
Machine Translation System", 2016, section 7, without coverage and with a
simpler power of the length. Shapes are static: all beams have the same steps,
and one that has ended is continued by padding, which costs nothing.

Letters: B batch, W beams, L steps, V tokens there are.
"""

import keras
from keras import ops

_NEVER = -1e30  # a log-probability


def beam_search(
    step, state, *, start, end, max_length, beam_width=1, length_power=1.0
):
    """The best sequences that are found, best first.

    With one beam the search is greedy; where W is V^(L - 1) or more, nothing
    is left out.

    Args:
        step: function of the last tokens, int32 (B·W,), and the state, that
            returns float32 log-probabilities (B·W, V) of the next ones and
            the next state.
        state: tensor or structure of them, (B, ...), before the first step;
            `step` is given (B·W, ...), a batch's beams side by side.
        start: the token that all begin with, which is not returned.
        end: the token that ends a sequence. 0 is padding, and never chosen.
        max_length: L, of tokens with the end.
        beam_width: W.
        length_power: a; 0 does not normalise.

    Returns:
        Tokens, int32 (B, W, L), padded with 0 after the end, and their log
        p(y), float32 (B, W). A sequence that did not end in L steps is as it
        is.

    Cost: L calls of `step`, and sorting W·V numbers at each.
    """
    batch = ops.shape(keras.tree.flatten(state)[0])[0]
    state = keras.tree.map_structure(
        lambda t: ops.repeat(t, beam_width, axis=0), state
    )
    row = ops.arange(beam_width)[None]  # of the beams
    rows = ops.broadcast_to(row, (batch, beam_width))
    first = ops.arange(batch)[:, None] * beam_width
    # All beams are alike at first: one counts.
    total = ops.where(rows == 0, 0.0, _NEVER)
    length = ops.zeros_like(total)
    token = ops.full_like(rows, start)
    ended = rows < 0
    steps = []
    for _ in range(max_length):
        scores, state = step(ops.reshape(token, (-1,)), state)
        tokens = scores.shape[-1]
        is_padding = ops.arange(tokens) == 0
        scores = ops.reshape(scores, (-1, beam_width, tokens))
        scores = ops.where(
            ended[..., None] == is_padding,
            ops.where(is_padding, 0.0, scores),
            _NEVER,
        )
        total = total[..., None] + scores
        length = length + ops.cast(ops.logical_not(ended), length.dtype)
        ranks = total / length[..., None] ** length_power
        ranks = ops.reshape(ranks, (-1, beam_width * tokens))
        best = ops.top_k(ranks, beam_width)[1]
        parent, token = best // tokens, ops.cast(best % tokens, "int32")
        total = ops.reshape(total, (-1, beam_width * tokens))
        total = ops.take_along_axis(total, best, axis=1)
        length = ops.take_along_axis(length, parent, axis=1)
        ended = ops.take_along_axis(ended, parent, axis=1)
        ended = ops.logical_or(ended, token == end)
        places = ops.reshape(first + ops.cast(parent, first.dtype), (-1,))
        state = keras.tree.map_structure(
            lambda t, places=places: ops.take(t, places, axis=0), state
        )
        steps.append((token, parent))
    return _sequences(steps, rows), total


def _sequences(steps, beams):
    """Tokens (B, W, L) of beams, by the way back to their beginnings."""
    tokens = []
    for token, parent in reversed(steps):
        tokens.append(ops.take_along_axis(token, beams, axis=1))
        beams = ops.take_along_axis(parent, beams, axis=1)
    return ops.stack(tokens[::-1], axis=-1)
