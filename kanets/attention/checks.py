"""What arguments of attention must be: one place for each rule."""

from numbers import Real

import numpy as np

from kanets.checks import (
    as_integer,
    is_number,
    is_positive,
    positive_integer,
)


def check_positive(**integers):
    """Raises a ValueError for a named value that is no integer above 0.

    A truth value is no integer here: True would be one head.

    Returns:
        The value as an int, as Keras takes no other; of several, a list.
    """
    return _only([positive_integer(*named) for named in integers.items()])


def check_positive_or_none(**integers):
    """As `check_positive`, but None may stand for what follows from others."""
    return _only(
        [
            None if value is None else positive_integer(name, value)
            for name, value in integers.items()
        ]
    )


def check_at_least(least, **integers):
    """As `check_positive`, for integers >= `least`."""
    numbers = [as_integer(value) for value in integers.values()]
    for number, (name, value) in zip(numbers, integers.items(), strict=True):
        if number is None or number < least:
            raise ValueError(
                f"{name} must be an integer >= {least}. "
                f"Received: {name}={value!r}"
            )
    return _only(numbers)


def check_odd(**sizes):
    """As `check_positive`, for odd integers."""
    for name, value in sizes.items():
        if positive_integer(name, value) % 2 == 0:
            raise ValueError(f"{name} must be odd. Received: {name}={value}")
    return check_positive(**sizes)


def check_seed(seed):
    """A seed as an int, or None; raises a ValueError for what is neither."""
    number = as_integer(seed)
    if number is None and seed is not None:
        raise ValueError(
            f"seed must be an integer or None. Received: seed={seed!r}"
        )
    return number


def one_per_axis(name, value, rank=None, kind=int):
    """What is given once, or once for each axis of a grid.

    Args:
        name: str, of the argument.
        value: a positive integer or, with `kind` bool, a truth value; or a
            sequence of these.
        rank: how many axes there are; None checks the values alone.
        kind: int or bool.

    Returns:
        A tuple of `rank`; with None a Python number, or a list of them.

    Raises:
        ValueError: another value, or not one for each axis.
    """
    several = isinstance(value, list | tuple | np.ndarray)
    values = list(value) if several else [value]
    fits = is_positive if kind is int else _is_bool
    short = several and len(values) != (rank or len(values) or 1)
    if short or not all(map(fits, values)):
        what = "a positive integer" if kind is int else "True or False"
        axes = "each axis" if rank is None else f"each of {rank} axes"
        raise ValueError(
            f"{name} must be {what}, or one for {axes} of the grid. "
            f"Received: {name}={value!r}"
        )
    values = [kind(v) for v in values]
    if rank is None:
        return values if several else values[0]
    return tuple(values if several else values * rank)


def check_scale(scale):
    """Raises a ValueError unless `scale` is None, "rsqrt" or a number.

    A truth value is no number here: False would be a factor of 0.
    """
    is_word = isinstance(scale, str) and scale == "rsqrt"
    if not (scale is None or is_word or is_number(scale)):
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


def check_divides(num_heads, channels):
    """Raises a ValueError where heads do not divide the channels."""
    if channels % num_heads:
        raise ValueError(
            "num_heads must divide the channels. Received: "
            f"num_heads={num_heads}, channels={channels}"
        )


def check_position(position, size):
    """Raises a ValueError for what is no (row, column) of a grid."""
    if len(position) != 2 or not all(
        0 <= p < side for p, side in zip(position, size, strict=True)
    ):
        raise ValueError(
            f"position must be (row, column) within {tuple(size)}. "
            f"Received: position={tuple(position)}"
        )


def check_choice(known, **values):
    """Raises a ValueError for a named value that is none of the known."""
    for name, value in values.items():
        if value not in tuple(known):  # of any type
            choices = " or ".join(f'"{choice}"' for choice in known)
            raise ValueError(
                f"{name} must be {choices}. Received: {name}={value!r}"
            )


def check_bool(**values):
    """Raises a ValueError for a named value that is no truth value.

    Returns:
        The value as a bool; of several, a list.
    """
    for name, value in values.items():
        if not _is_bool(value):
            raise ValueError(
                f"{name} must be True or False. Received: {name}={value!r}"
            )
    return _only([bool(value) for value in values.values()])


def check_fraction(**numbers):
    """Raises a ValueError for a named value that is no number of 0 to 1."""
    for name, value in numbers.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 1:
            raise ValueError(
                f"{name} must be a number of 0 to 1. Received: {name}={value!r}"
            )


def _only(values):
    return values[0] if len(values) == 1 else values


def _is_bool(value):
    return isinstance(value, bool | np.bool_)
