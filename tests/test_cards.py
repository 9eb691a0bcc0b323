"""The cards say what `entry.json` says, and the entries what was measured.

The slow tests measure every entry again, on the data sets in the folder that
KANETS_DATA names: `cifar10/`, `tiny_imagenet_64/`, `camvid/`, `flowers/`,
`imagenet_samples/`.
"""

import csv
import os
import shlex
from pathlib import Path

import pytest

from kanets import cli, zoo
from tests.backends import BACKEND
from training import cards

ROOT = Path(__file__).parents[1]
ENTRIES = zoo.list_models()
entries = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)


@entries
def test_the_card_is_made_of_the_entry(entry):
    folder = ROOT / "models" / entry.name
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == cards.card(entry), "python training/make_entry.py --cards"
    for figure in (entry.value, f"{entry.parameters:,}", entry.train_command):
        assert str(figure) in text
    for name in entry.pictures:
        assert (folder / name).is_file() and f"]({name})" in text


@entries
def test_recipe_and_log_are_there(entry):
    recipe = ROOT / "training" / entry.recipe
    assert recipe.is_file()
    assert f"training/{entry.recipe} " in entry.train_command
    if recipe.suffix == ".py":
        return  # converted: who trained it has the log
    assert recipe.with_suffix(".csv").is_file()
    column = {
        "classification": "val_accuracy",
        "segmentation": "val_mean_iou",
    }.get(entry.task)
    if column:  # a generator's figure is against other pictures
        with recipe.with_suffix(".csv").open(newline="") as file:
            [*_, last] = csv.DictReader(file)
        # Kernels kept in float16 change a few answers more.
        slack = 1e-3 if "float16" in entry.notes else 5e-4
        assert entry.value == pytest.approx(float(last[column]), abs=slack)


def test_the_page_lists_every_entry():
    page = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    assert page == cards.zoo_page(ENTRIES), "training/make_entry.py --cards"
    for entry in ENTRIES:
        assert f"[{entry.name}]({entry.name}/README.md)" in page


def test_the_zoo_stays_small():
    sizes = [p.stat().st_size for p in (ROOT / "models").rglob("*.*")]
    assert sum(sizes) < 100e6


@pytest.mark.slow
@pytest.mark.skipif(
    "KANETS_DATA" not in os.environ, reason="KANETS_DATA names no folder"
)
@pytest.mark.skipif(BACKEND != "tensorflow", reason="exporting is TensorFlow's")
@pytest.mark.parametrize("form", ["keras", "savedmodel"])
@entries
def test_evaluate_prints_the_figure(entry, form, tmp_path, capsys):
    arguments = shlex.split(entry.evaluate_command)[1:]
    place = arguments.index("--data") + 1
    arguments[place] = str(Path(os.environ["KANETS_DATA"]) / arguments[place])
    if form == "savedmodel":
        command = ["export", entry.name, "--to", str(tmp_path / "served")]
        if entry.task == "segmentation":
            size = map(str, entry.input_shape[:2])
            command += ["--image-size", *size]
        assert cli.main(command) == 0
        arguments[1] = str(tmp_path / "served")
    capsys.readouterr()
    assert cli.main(arguments) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    words = last.replace(",", "").split()
    value = next(float(word) for word in words if word[0].isdigit())
    expected = pytest.approx(entry.value, abs=tolerance(entry, form))
    assert value == expected, last


def tolerance(entry, form):
    # Another processor rounds otherwise: a picture or two may change sides.
    # Where pictures are enlarged, as from 64 to 144 pixels, every tenth value
    # is just between two, and a bundle rounds it otherwise than Pillow does.
    if entry.task == "generation":
        return 0.1
    return 2e-3 if form == "savedmodel" else 5e-4
