"""How far long work is, told to who shows it: the command line, or no one."""

import contextlib
import contextvars

_shower = contextvars.ContextVar("shower", default=None)


@contextlib.contextmanager
def shown_by(shower):
    """Lets a function show the progress of what is done inside.

    Args:
        shower: what `progress` is called as, a context manager; None shows
            nothing.
    """
    token = _shower.set(shower)
    try:
        yield
    finally:
        _shower.reset(token)


@contextlib.contextmanager
def progress(total, doing=""):
    """Tells how far work is; inside of other work that is told, nothing.

    Args:
        total: int, of pictures.
        doing: what is done to them, one word.

    Yields:
        Function of how many of them are done more, for any thread.
    """
    shower = _shower.get()
    if shower is None:
        yield lambda count: None
        return
    with shown_by(None), shower(total, doing) as advance:
        yield advance
