"""Class folders named by ids get the names of `classes.tsv`."""

import numpy as np
import pytest
from PIL import Image

from kanets import data
from kanets.data import folders
from kanets.data.loading import find_test_folder

LABELS = {"n01": "wasp", "n02": "ant", "n03": "bee, honey bee"}


def make_tree(root, names=tuple(LABELS)):
    """Class folders of two pictures; those of class `c` hold 10 * c."""
    for name in names:
        (root / name).mkdir(parents=True)
        value = 10 * list(LABELS).index(name)
        for i in range(2):
            picture = np.full((4, 5, 3), value + i, np.uint8)
            Image.fromarray(picture).save(root / name / f"{i}.png")
    return root


def write_labels(folder, labels=LABELS):
    lines = [f"{name}\t{label}\n" for name, label in labels.items()]
    # Neither the order of the lines nor lines of other folders matter.
    lines = [*reversed(lines), "n99\tmoth\n", "\n"]
    (folder / "classes.tsv").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def photos(tmp_path):
    make_tree(tmp_path / "photos" / "train")
    make_tree(tmp_path / "photos" / "val", ("n03", "n01"))
    write_labels(tmp_path / "photos")
    return tmp_path / "photos"


def test_labels_name_the_classes_in_the_order_of_the_folders(photos):
    names = ["wasp", "ant", "bee, honey bee"]
    train, held = data.load(photos)
    assert train.class_names == held.class_names == names
    assert held.labels[held.rows].tolist() == [0, 0, 2, 2]
    for images, labels in train:
        np.testing.assert_array_equal(images[:, 0, 0, 0] // 10, labels)
    test = data.load_test(photos)
    assert test.class_names == names
    assert test[0][1].tolist() == [0, 0, 2, 2]
    assert find_test_folder(photos) == (photos / "val", names)


def test_labels_stand_beside_the_class_folders_or_above(photos, monkeypatch):
    names = ["wasp", "ant", "bee, honey bee"]
    assert data.load_test(photos / "train").class_names == names
    monkeypatch.chdir(photos / "train")
    assert data.load_test(".").class_names == names
    own = {**LABELS, "n02": "weaver ant"}
    write_labels(photos / "train", own)
    assert folders.list_classes(photos / "train") == list(own.values())


def test_without_labels_the_folders_name_the_classes(photos):
    (photos / "classes.tsv").unlink()
    assert data.load(photos)[0].class_names == list(LABELS)


@pytest.mark.parametrize(
    "names",
    [
        ["moth", "bee, honey bee", "ant", "wasp"],
        ["n99", "n03", "n02", "n01"],  # of a model trained without the file
    ],
)
def test_a_callers_names_set_the_labels(photos, names):
    paths, labels = folders.list_pictures(photos / "val", names, complete=False)
    assert [path.parent.name for path in paths] == ["n03", "n03", "n01", "n01"]
    assert labels == [1, 1, 3, 3]
    root, found = find_test_folder(photos, class_names=names)
    assert root == photos / "val" and found == names


def test_labels_go_before_folder_names(photos):
    """A label may be the name of another folder."""
    swapped = {"n01": "n02", "n02": "n01", "n03": "n03"}
    write_labels(photos, swapped)
    test = data.load_test(photos / "train")
    assert test.class_names == ["n02", "n01", "n03"]
    np.testing.assert_array_equal(test[0][0][:, 0, 0, 0] // 10, test[0][1])


def test_names_of_both_kinds_are_refused(photos):
    with pytest.raises(ValueError, match=r"Received: \['n01', 'n03'\] in "):
        data.load_test(photos, class_names=["n02", "wasp"])


def test_a_class_without_pictures_is_named_by_its_folder(photos):
    for file in (photos / "train" / "n02").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no picture in '.*train/n02'"):
        data.load(photos)


@pytest.mark.parametrize(
    "text,fault",
    [
        ("n01\ta\nn03\tc\n", r"Received: none for \['n02'\] in '.*train'"),
        ("n01\ta\nn02\tb\nn03\ta\n", "'a' for 'n01' and for 'n03'"),
        ("n01\ta\nn02 b\n", "line 2, 'n02 b', of '.*classes.tsv'"),
        ("n01\ta\nn02\t\n", r"a tab and its label.* line 2, 'n02\\t'"),
        ("n01\ta\nn01\tb\n", r"once for each folder.* line 2, 'n01\\tb'"),
    ],
)
def test_faults_of_the_file(photos, text, fault):
    (photos / "classes.tsv").write_text(text)
    with pytest.raises(ValueError, match=fault):
        data.load(photos)
