"""One pool of threads for all reading of pictures."""

import contextlib
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from kanets.checks import positive_integer

_this_thread = threading.local()
_workers = None  # threads of the pool; None leaves it to Python


def map_in_threads(function, items):
    """Applies a function to every item, in the threads of one shared pool.

    A function that calls this in turn gets its results from its own thread:
    were each thread of the pool to wait for others, none would be left.

    Args:
        function: of one item; what it raises is raised here.
        items: an iterable.

    Returns:
        List of the results, in the order of the items.
    """
    if getattr(_this_thread, "is_ours", False):
        return [function(item) for item in items]
    return list(_pool().map(function, items))


@contextlib.contextmanager
def reading_with(workers):
    """Gives the pool another number of threads, in the whole process.

    Args:
        workers: positive int.

    Raises:
        ValueError: it is none.
    """
    global _workers
    workers = positive_integer("`workers`", workers)
    earlier, _workers = _workers, workers
    _pool.cache_clear()
    try:
        yield
    finally:
        _workers = earlier
        _pool.cache_clear()


@functools.cache
def _pool():
    # Its threads start when they are needed, and end with it.
    return ThreadPoolExecutor(
        _workers, thread_name_prefix="kanets", initializer=_mark_thread
    )


def _mark_thread():
    _this_thread.is_ours = True


# A forked process has the pool, but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
