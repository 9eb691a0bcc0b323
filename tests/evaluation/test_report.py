"""Where a model errs: what is counted, kept and written."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kanets import data, evaluation, visualize, zoo
from kanets.evaluation import classification, report
from tests.evaluation import test_segmentation as streets_of
from tests.evaluation.test_classification import NAMES, by_colour
from tests.photos import write_photos, write_streets

PICTURES = {"report.json", "confusion.png", "classes.png", "mistakes.png"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Red pictures, the surer the redder, lie among the blue."""
    root = write_photos(tmp_path_factory.mktemp("photos"), 1, 4, (6, 8), "png")
    for name, red in (("redder", 250), ("red", 140)):
        pixels = np.full((6, 8, 3), (red, 40, 40), np.uint8)
        Image.fromarray(pixels).save(root / "val" / "blue" / f"{name}.png")
    return root / "val"


@pytest.fixture
def model(tmp_path):
    return zoo.save_model(by_colour(2, "softmax"), tmp_path / "model", NAMES)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_one_pass_counts_and_writes(photos, model, tmp_path, monkeypatch):
    asked, original = [], classification._probabilities

    def counted(model, given, names):
        asked.append(len(given))
        return original(model, given, names)

    monkeypatch.setattr(classification, "_probabilities", counted)
    folder = tmp_path / "new" / "report"
    result = evaluation.evaluate(model, photos, batch_size=4, report=folder)
    assert asked == [4, 4, 2]
    plain = evaluation.evaluate(model, photos)
    assert plain == {"accuracy": 0.8, "correct": 8, "pictures": 10}
    assert result == {
        **plain,
        "weakest": {"blue": pytest.approx(4 / 6)},
        "report": str(folder),
    }
    assert names_in(folder) == PICTURES
    assert names_in(folder.parent) == {"report"}
    for name in PICTURES - {"report.json"}:
        with Image.open(folder / name) as image:
            assert image.format == "PNG" and min(image.size) > 100
    content = json.loads((folder / "report.json").read_text())
    assert content["accuracy"] == 0.8
    assert content["classes"] == [
        {
            "name": "blue",
            "count": 6,
            "correct": 4,
            "accuracy": pytest.approx(4 / 6),
        },
        {"name": "red", "count": 4, "correct": 4, "accuracy": 1.0},
    ]
    assert content["confusion"] == [[4, 2], [0, 4]]
    assert content["most_confused"] == [
        {"class": "blue", "said": "red", "count": 2, "share": 2 / 6}
    ]
    worst = content["most_wrong"]
    assert [entry["picture"] for entry in worst] == [
        str(photos / "blue" / f"{name}.png") for name in ("redder", "red")
    ]
    for entry in worst:
        [(_, ranked)] = evaluation.predict(model, [entry["picture"]])
        assert entry["class"] == "blue" and entry["said"] == "red"
        assert entry["probability"] == pytest.approx(ranked[0][1], abs=1e-5)
        assert entry["probability_of_class"] == pytest.approx(ranked[1][1])


def test_exports_of_files_and_arrays(photos, model, tmp_path):
    """Both ways that no paths or no pixels are at hand."""
    net = zoo.load_model(model)

    class Served:
        takes_files, class_names, name = True, NAMES, "served"

        def __call__(self, files):
            path = tmp_path / "one.png"
            found = []
            for content in files:
                path.write_bytes(content)
                found.append(np.array(Image.open(path).convert("RGB")))
            pixels = np.stack(found).astype("float32")
            return {"probabilities": np.array(net(pixels))}

    evaluation.evaluate(model, photos, report=tmp_path / "pixels")
    classification.evaluate(Served(), photos, report=tmp_path / "files")
    pixels, files = (
        json.loads((tmp_path / name / "report.json").read_text())
        for name in ("pixels", "files")
    )
    for entry in [*pixels["most_wrong"], *files["most_wrong"]]:
        entry["probability"] = round(entry["probability"], 5)
        entry["probability_of_class"] = round(entry["probability_of_class"], 5)
    assert files == pixels

    red = np.full((3, 6, 8, 3), (250, 40, 40), np.uint8)
    arrays = {"test": (red, np.array([1, 0, 1]))}
    net.class_names = NAMES
    classification.evaluate(net, arrays, report=tmp_path / "arrays")
    content = json.loads((tmp_path / "arrays" / "report.json").read_text())
    [entry] = content["most_wrong"]
    assert entry["picture"] is None and entry["index"] == 1
    with Image.open(tmp_path / "arrays" / "mistakes.png") as image:
        assert (250, 40, 40) in {c for _, c in image.getcolors(2**16)}


def test_mistakes_in_a_pack_are_drawn(photos, model, tmp_path):
    """Its pictures are no files; they look as those of the folder."""
    data.pack(photos, tmp_path / "pack")
    sheets = []
    for source in (photos, tmp_path / "pack"):
        folder = tmp_path / f"of_{source.name}"
        evaluation.evaluate(model, source, report=folder)
        with Image.open(folder / "mistakes.png") as image:
            sheets.append({c for _, c in image.getcolors(2**16)})
    assert sheets[0] == sheets[1]


def test_the_surest_mistakes_are_kept():
    found = report.ClassReport(["a", "b"])
    sure = np.random.default_rng(0).permutation(np.linspace(0.51, 0.99, 40))
    scores = np.stack([1 - sure, sure], 1)
    images = np.zeros((40, 2, 2, 3))
    for rows in (slice(0, 30), slice(30, 40)):
        labels = np.zeros(len(scores[rows]), int)
        found.add(labels, scores[rows], images=images[rows])
    kept = [entry["index"] for entry in found.most_wrong()]
    assert kept == list(np.argsort(-sure)[:24])
    assert found.result()["accuracy"] == 0


@pytest.mark.parametrize("classes", [2, 5, 6, 9])
def test_more_than_five_classes_have_a_top_5_accuracy(classes):
    found = report.ClassReport([str(label) for label in range(classes)])
    scores = np.random.default_rng(1).dirichlet(np.ones(classes), 40)
    labels = np.arange(40) % classes
    scores[7] = 1 / classes  # all alike: the first five are the highest
    scores[8] = 1 / classes
    for rows in (slice(0, 30), slice(30, 40)):
        found.add(labels[rows], scores[rows], paths=list("x" * 40)[rows])
    hits = [
        sum(other > row[true] for other in row)
        + sum(other == row[true] for other in row[:true])
        < 5
        for row, true in zip(scores, labels, strict=True)
    ]
    result = found.result()
    assert result["correct"] == (scores.argmax(-1) == labels).sum()
    assert next(iter(result)) == "accuracy"
    if classes > 5:
        assert result["top_5_accuracy"] == sum(hits) / 40
        assert result["accuracy"] < result["top_5_accuracy"] < 1
    else:
        assert "top_5_accuracy" not in result


def test_classes_without_pictures():
    found = report.ClassReport(["a", "b", "c"])
    found.add(np.array([0, 0]), np.eye(3)[[0, 2]], paths=["x", "y"])
    assert found.class_figures() == {"a": 0.5}
    rows = found._classes(found.class_figures())
    assert rows[1] == {"name": "b", "count": 0, "correct": 0, "accuracy": None}
    assert found._note("a") == "1 of 2 pictures; 1 taken for c"


def test_a_folder_of_something_else_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match=r"Received: report='\.'"):
        report.check_folder(".")
    monkeypatch.setattr(classification, "_of_pixels", None)  # comes later
    for name in ("mine", "file"):
        with pytest.raises(ValueError, match=f"new, empty.*{name}'$"):
            evaluation.evaluate(model, tmp_path, report=tmp_path / name)
    assert names_in(tmp_path / "mine") == {"thesis.txt"}


def test_an_earlier_report_is_replaced_whole(
    photos, model, tmp_path, monkeypatch
):
    folder = tmp_path / "report"
    evaluation.evaluate(model, photos, report=folder)

    def fail(*_):
        raise RuntimeError("no ink")

    right = shutil.copytree(photos, tmp_path / "right")
    for name in ("red", "redder"):
        (right / "blue" / f"{name}.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(visualize, "class_bars", fail)
        with pytest.raises(RuntimeError, match="no ink"):
            evaluation.evaluate(model, right, report=folder)
    assert names_in(folder) == PICTURES
    assert json.loads((folder / "report.json").read_text())["pictures"] == 10
    result = evaluation.evaluate(model, right, report=folder)
    assert result["weakest"] == {}
    assert names_in(folder) == PICTURES - {"mistakes.png"}
    assert not [name for name in names_in(tmp_path) if name[0] == "."]


def test_a_picture_that_is_gone_is_grey(tmp_path):
    found = report.ClassReport(["a", "b"])
    found.add(np.array([0]), np.array([[0.1, 0.9]]), [tmp_path / "gone.png"])
    found.write(tmp_path / "report")
    with Image.open(tmp_path / "report" / "mistakes.png") as image:
        assert (128, 128, 128) in {c for _, c in image.getcolors(2**16)}


def test_a_segmenter_has_one(tmp_path):
    streets = write_streets(tmp_path / "streets", 1, 9, streets_of.SIZE)
    folder = zoo.save_model(streets_of.by_colour(), tmp_path / "model", NAMES)
    for name, columns in (("2", 4), ("4", 12)):  # wrong from the left on
        path = streets / "val" / "labels" / f"{name}.png"
        pixels = np.array(Image.open(path))
        wrong = np.where(pixels < 2, 1 - pixels, 7)[:, :columns]
        pixels[:, :columns] = wrong
        Image.fromarray(pixels).save(path)
    plain = evaluation.evaluate(folder, streets, ignore_label=7)
    result = evaluation.evaluate(
        folder, streets, ignore_label=7, report=tmp_path / "report"
    )
    assert {**result, **plain} == result
    assert result["weakest"] == dict(
        sorted(plain["iou"].items(), key=lambda item: item[1])
    )
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert names_in(tmp_path / "report") == PICTURES
    worst = content["most_wrong"]
    assert [entry["index"] for entry in worst[:2]] == [4, 2]
    assert worst[0]["picture"].endswith("images/4.png") and len(worst) <= 6
    assert worst[0]["pixel_accuracy"] < 0.1
    assert worst[1]["pixel_accuracy"] == pytest.approx(8 / 11, abs=0.05)
    assert np.sum(content["confusion"]) == 9 * 8 * 11
    assert content["classes"][0]["iou"] == plain["iou"]["blue"]


def test_a_generator_has_none(tmp_path, monkeypatch):
    task = evaluation.tasks.TASKS["generation"]
    monkeypatch.setattr(evaluation, "_open", lambda _: (None, task))
    with pytest.raises(ValueError, match="options of generation.*`report`"):
        evaluation.evaluate("gan", tmp_path, report=tmp_path / "report")
