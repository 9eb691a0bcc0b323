"""Nothing loads before it is used, and saved files load all the same."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kanets
import ylg
from tests.test_saved import ARCHIVE, NAMES

ROOT = Path(__file__).parents[1]


def python(code, *arguments):
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("package", [kanets, ylg])
def test_every_public_name_is_there(package):
    assert dir(package) == package.__all__
    for name in package.__all__:
        assert getattr(package, name) is vars(package)[name]
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


def test_what_was_public_is():
    names = (
        "KANet KANetSegmenter create_model data export export_litert "
        "export_onnx export_openvino export_savedmodel feature_model layers "
        "list_models load_model load_savedmodel losses nets ops optimizers "
        "recipes save_model visualize"
    )
    assert set(names.split()) <= set(kanets.__all__) and kanets.__version__
    names = (
        "SAGAN Lookahead gan information_flow inversion invert layers metrics "
        "official ops patterns superconcentrator visualize"
    )
    assert set(names.split()) <= set(ylg.__all__)


START = """
import runpy, sys, time
start = time.perf_counter()
import kanets, ylg
sys.argv = ["kanets", "--help"]
try:
    runpy.run_module("kanets", run_name="__main__")
except SystemExit as stop:
    assert stop.code == 0
print(time.perf_counter() - start)
heavy = {"keras", "tensorflow", "jax", "torch", "numpy", "pydantic"}
heavy &= set(sys.modules)
assert not heavy, heavy
"""


def test_the_start_is_instant():
    *text, seconds = python(START).splitlines()
    assert any("finetune" in line for line in text)
    assert float(seconds) < 2, "half a second where nothing else runs"


# As if each beginning were a process: what Keras is made of stays loaded.
BEGINNINGS = """
import importlib
import pkgutil
import sys
from pathlib import Path
import kanets, ylg
assert "keras" not in sys.modules
import keras

registry = keras.saving.get_custom_objects()
for name in sys.argv[2:]:
    keras.saving.load_model(Path(sys.argv[1]) / f"{name}.keras")

def ours():
    return [m for m in sys.modules if m.split(".")[0] in ("kanets", "ylg")]

def begin(*names):
    for name in [*ours(), "keras"]:
        sys.modules.pop(name, None)
    registry.clear()
    for name in names:
        importlib.import_module(name)
    if "keras" not in sys.modules:
        return
    with_kanets = any(name.startswith("kanets") for name in names)
    missing = (known if with_kanets else known_to_ylg) - set(registry)
    assert not missing, f"{names}: {missing}"

at_once = ours()
for root in (kanets, ylg):
    for found in pkgutil.walk_packages(root.__path__, root.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
known = set(registry)
known_to_ylg = {name for name in known if name.startswith("ylg>")}
assert len(known) >= 19 and len(known_to_ylg) >= 8

begin("keras", "kanets")
begin("keras", "ylg")
for name in at_once:
    begin("kanets", name, "keras")
    if name.startswith("ylg"):
        begin(name, "keras")
for name in kanets.__all__:
    begin("kanets")
    getattr(sys.modules["kanets"], name)
print(len(at_once))
"""


@pytest.mark.slow
def test_saved_files_load_whatever_was_imported_first(tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    assert int(python(BEGINNINGS, str(tmp_path), *NAMES)) > 30


@pytest.mark.thorough
def test_layers_may_be_imported_first():
    """Amid it Keras is, and with that all that is registered."""
    assert python("import kanets.layers; print('done')") == "done\n"
