"""The benchmarks' workers: what fails gives a note, and the others go on."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPT = f"""
import os, sys, time
sys.path.insert(0, {str(BENCHMARKS)!r})
from measure import serve

def prepare(what):
    if what == "raises":
        raise ValueError("no such case")
    if what == "dies":
        os._exit(3)
    if what == "hangs":
        time.sleep(60)
    print("noise on the standard output")
    return lambda: time.sleep(0.01)

serve(prepare)
"""


@pytest.fixture
def measure():
    path = BENCHMARKS / "measure.py"
    specification = importlib.util.spec_from_file_location("measure", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def worker(measure, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    worker = measure.Worker(script, {}, seconds=5)
    yield worker
    worker.close()


def test_what_fails_has_a_note_and_the_others_figures(measure, worker):
    cases = ("works", "raises", "dies", "also works")
    figures = measure.take_turns(
        {what: (worker, {"what": what}) for what in cases}, 0.1, rounds=2
    )
    assert figures["raises"]["note"] == "ValueError: no such case"
    assert figures["dies"]["note"].startswith("ended with 3")
    for what in ("works", "also works"):
        assert not figures[what]["note"]
        assert 10 <= float(figures[what]["milliseconds"]) < 1000
        assert figures[what]["calls"] >= 2
    assert not figures["raises"]["milliseconds"]


@pytest.mark.thorough
def test_a_worker_that_hangs_is_ended(measure, worker):
    with pytest.raises(measure.Failure, match="not within 5 s"):
        worker.ask("prepare", {"what": "hangs"})
    assert worker.process is None
    assert worker.ask("prepare", {"what": "works"}) == {}


def test_a_worker_that_died_between_questions_is_a_failure(measure, worker):
    worker.ask("prepare", {"what": "works"})
    worker.process.kill()
    worker.process.wait()
    with pytest.raises(measure.Failure, match="ended with -9"):
        worker.ask("prepare", {"what": "works"})
    assert worker.process is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_a_number_or_nothing(measure, worker):
    assert float(measure.peak_memory(worker, {"what": "works"})) < 10
    assert measure.peak_memory(worker, {"what": "raises"}) == ""


def test_turns_of_processor_time(measure):
    calls = {"little": lambda: sum(range(2_000))}
    calls["much"] = lambda: sum(range(40_000))
    taken = measure.cpu_turns(calls, turns=3, least=0.02)
    assert [len(turns) for turns in taken.values()] == [3, 3]
    assert min(taken["much"]) > 5 * min(taken["little"]) > 0
