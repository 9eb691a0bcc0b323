"""The script of Ray Data: its actor by hand, and all of it where Ray is."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kanets import evaluation
from tests.backends import needs_tensorflow
from tests.scale.bundles import write_bundle

pyarrow = pytest.importorskip("pyarrow", reason="Ray's tables are its")
pytestmark = needs_tensorflow
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "launchers" / "ray_predict.py"
PATIENCE = 600  # seconds, for a machine that does other work


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A bundle, ten pictures, and one that is cut short."""
    room = write_bundle(tmp_path_factory.mktemp("room"), "all")
    (room / "photos").mkdir()
    for path in (room / "all" / "val").rglob("*.png"):
        name = f"{path.parent.name}-{path.name}"
        (room / "photos" / name).write_bytes(path.read_bytes())
    cut = (room / "photos" / "blue-0.png").read_bytes()[:50]
    (room / "photos" / "cut.png").write_bytes(cut)
    return room


def check(room, rows):
    """Whether rows are the answers of `kanets predict`."""
    bad = []
    expected = evaluation.predict(
        room / "served" / "mine",
        [room / "photos"],
        top_k=1,
        on_bad=lambda path, why: bad.append((path.name, why)),
    )
    found = {Path(row["picture"]).name: row for row in rows}
    assert len(found) == len(rows) == 11
    for path, [(name, score)] in expected:
        row = found.pop(path.name)
        assert (row["class"], row["reason"]) == (name, None)
        assert row["score"] == pytest.approx(score, abs=1e-5)
    assert bad == [(name, row["reason"]) for name, row in found.items()]
    assert found["cut.png"]["class"] is None


def test_an_actor_answers_batches(room):
    spec = importlib.util.spec_from_file_location("ray_predict", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    actor = script.Answer(room / "served" / "mine")
    paths = sorted((room / "photos").iterdir())
    rows = []
    for part in (paths[:4], paths[4:]):
        table = {
            "path": [str(path) for path in part],
            "bytes": [path.read_bytes() for path in part],
        }
        rows += actor(pyarrow.table(table)).to_pylist()
    check(room, rows)


@pytest.mark.thorough
def test_ray_answers_as_kanets_does(room, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    from pyarrow import dataset

    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    arguments = [room / "served" / "mine", room / "photos", tmp_path / "out"]
    subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        check=True,
        env={**os.environ, **environment},
        timeout=PATIENCE,
    )
    check(room, dataset.dataset(tmp_path / "out").to_table().to_pylist())
