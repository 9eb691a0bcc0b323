"""All reading shares one pool of threads."""

import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from kanets.data import threads
from kanets.data.threads import map_in_threads, reading_with


def test_results_are_in_order_and_errors_are_raised():
    def slow_first(item):
        time.sleep(0.01 * (item == 0))
        return 10 * item

    assert map_in_threads(slow_first, range(5)) == [0, 10, 20, 30, 40]
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda item: 1 // item, [1, 0])


def test_the_threads_are_kept():
    def who(_):
        return threading.current_thread()

    found = {thread for _ in range(50) for thread in map_in_threads(who, "ab")}
    assert threading.current_thread() not in found
    assert len(found) <= min(32, (os.cpu_count() or 1) + 4)


def test_their_number_may_be_told():
    def who(_):
        time.sleep(0.005)
        return threading.current_thread()

    def count():
        return len(set(map_in_threads(who, range(40))))

    before = count()
    with reading_with(1):
        assert count() == 1
        with reading_with(3):
            assert count() == 3
        assert count() == 1
    assert count() == before > 3
    for workers in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"Received: workers={workers}$"):
            with reading_with(workers):
                pass


def test_a_task_may_map_in_turn():
    def nested(item):
        return sum(map_in_threads(lambda other: item * other, range(4)))

    found = []
    runner = threading.Thread(
        target=lambda: found.extend(map_in_threads(nested, range(100))),
        daemon=True,
    )
    runner.start()
    runner.join(20)
    assert found == [6 * item for item in range(100)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_threads_of_its_own():
    map_in_threads(abs, range(50))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        found = map_in_threads(abs, [-1, -2])
        os._exit(0 if found == [1, 2] else 1)
    for _ in range(2000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended and status == 0


def test_the_interpreter_ends():
    code = "from threads import map_in_threads; map_in_threads(abs, range(99))"
    folder = Path(threads.__file__).parent
    subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=True, timeout=20
    )
