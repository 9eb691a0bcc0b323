"""The one rule of `scale`, the factor of the logits, for operators and layers.

It imports nothing of ours, so that all can import it.
"""

from numbers import Real


def check_scale(scale):
    """Raises a ValueError unless `scale` is None, "rsqrt" or a number.

    A truth value is no number here: False would be a factor of 0.
    """
    is_number = isinstance(scale, Real) and not isinstance(scale, bool)
    is_word = isinstance(scale, str) and scale == "rsqrt"
    if not (scale is None or is_word or is_number):
        raise ValueError(
            'scale must be None, "rsqrt" or a number. '
            f"Received: scale={scale!r}"
        )


def logit_scale(scale, head_dim):
    """The factor of the logits that `scale` stands for.

    Args:
        scale: None for no factor, "rsqrt" for 1/sqrt(D), or a number.
        head_dim: D, the channels of a head's queries and keys.

    Returns:
        float.

    Raises:
        ValueError: `scale` is none of these; True and False are no numbers.
    """
    check_scale(scale)
    if scale is None:
        return 1.0
    return head_dim**-0.5 if scale == "rsqrt" else float(scale)
