"""Rules that arguments all over the package keep.

Imports nothing of the package, and may be imported by all of it.
"""

import difflib
import math
import numbers
import operator


def as_integer(value):
    """The int that a value stands for, or None.

    Python's and NumPy's integers stand for one; a bool and a float do not.
    """
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def is_number(value):
    """Whether a value is a real number that is finite; a bool is none."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def is_positive(value):
    """Whether a value is an integer of 1 or more."""
    return (as_integer(value) or 0) >= 1


def positive_integer(name, value):
    """Checks an integer of 1 or more.

    Args:
        name: str, of the argument, in backticks where the caller's errors
            have these.
        value: what was given for it.

    Returns:
        The value as an int.

    Raises:
        ValueError: it is none.
    """
    if not is_positive(value):
        raise ValueError(
            f"{name} must be a positive integer. "
            f"Received: {name.strip('`')}={value!r}"
        )
    return as_integer(value)


def nearest(names, known):
    """What misspelt names may mean, to go on a sentence with; or nothing.

    Args:
        names: a name, or several.
        known: those there are.
    """
    names = [names] if isinstance(names, str) else names
    found = [
        near
        for name in names
        for near in difflib.get_close_matches(name, known, n=1)
    ]
    return f" (nearest: {', '.join(found)})" if found else ""


def one_line(error):
    """What an error says, in one line of at most 400 characters."""
    return " ".join(str(error).split())[:400]
