"""Which implementation of an operator runs: chosen here, never saved.

"xla" is plain `keras.ops`, for every backend; "pallas" are kernels that keep
scores on the chip, for JAX; "reference" is masked and dense, for tests. All
give the same numbers. "auto" is what `implementation` has set, at first
"xla", as long as none has been measured to be faster.
"""

import keras

NAMES = ("auto", "xla", "pallas", "reference")
_default = "xla"


class implementation:  # noqa: N801, used as a function
    """Sets the implementation of "auto", for good or within `with`.

    What a kernel does not take (an operator without one, a mask, see
    `why_no_kernel`) is computed by "xla". A function that was compiled keeps
    what it was traced with; other threads see what is set, too.

    Args:
        name: "auto", "xla", "pallas" or "reference"; "auto" is as at first.

    Raises:
        ValueError: an unknown name; "pallas" where the backend has no
            kernels.

    Example:

    >>> with kanets.attention.implementation("xla"):
    ...     y = layer(x)
    """

    def __init__(self, name):
        global _default
        check(name)
        if name == "pallas":
            _refuse(why_no_kernel())
        self._before = _default
        _default = "xla" if name == "auto" else name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        global _default
        _default = self._before


def chosen(asked, known, reason=None):
    """The implementation that runs.

    Args:
        asked: what an operator was called with. Asked for by name, what
            cannot run is refused; what `implementation` set gives way.
        known: the implementations of the operator.
        reason: `why_no_kernel` of its inputs.

    Returns:
        One of `known`, never "auto".

    Raises:
        ValueError: an unknown name, or "pallas" where it cannot run.
    """
    check(asked, known)
    name = _default if asked == "auto" else asked
    if name == "pallas" and asked == name:
        _refuse(reason)
    return "xla" if name not in known or (name == "pallas" and reason) else name


def why_no_kernel(x=None, mask=None, rank=None):
    """Why a kernel cannot run here, as a sentence; None if it can.

    Args:
        x: the input of the operator, may be symbolic; None asks for the
            backend alone.
        mask: its mask.
        rank: the rank it must have; without one, any.
    """
    backend = keras.backend.backend()
    if backend != "jax":
        return (
            'implementation="pallas" needs the JAX backend of Keras. '
            f"Received: backend={backend!r}"
        )
    if x is None:
        return None
    dtype = keras.backend.standardize_dtype(x.dtype)
    if (
        rank in (None, len(x.shape))
        and mask is None
        and dtype in ("float16", "bfloat16", "float32")
    ):
        return None
    kind = "tokens" if rank is None else "a picture (B, H, W, C)"
    return (
        f'implementation="pallas" needs {kind} of 32 bits or fewer and no '
        f"mask. Received: x.shape={tuple(x.shape)}, dtype={dtype}, "
        f"mask={None if mask is None else 'given'}"
    )


def check(name, known=NAMES):
    """Raises a ValueError that names an implementation there is not."""
    if name not in known:
        raise ValueError(
            f"implementation must be one of {sorted(known)}. "
            f"Received: implementation={name!r}"
        )


def _refuse(reason):
    if reason is not None:
        raise ValueError(reason)
