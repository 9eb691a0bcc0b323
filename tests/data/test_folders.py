"""Class folders: their labels in `classes.tsv`, links, spellings."""

import os
import unicodedata

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


def test_names_of_imagenet_find_folders_of_wordnet_ids(tmp_path):
    names = folders.imagenet_names()
    assert len(names) == 1000 and list(names) == sorted(names)
    assert len({name.casefold() for name in names.values()}) == 1000
    root = make_tree(tmp_path / "photos")
    for old, new in (("n01", "n03126707"), ("n02", "n02012849")):
        (root / old).rename(root / new)
    (root / "n03").rename(root / "n01440764")
    classes = list(names.values())
    paths, labels = folders.list_pictures(root, classes, complete=False)
    found = {
        p.parent.name: classes[i] for p, i in zip(paths, labels, strict=True)
    }
    assert found == {
        "n01440764": "tench",
        "n02012849": "crane (bird)",
        "n03126707": "crane (machine)",
    }
    # Otherwise the folders' names are the classes', as they always were.
    assert folders.list_classes(root) == sorted(p.name for p in root.iterdir())
    (root / "n02012849").rename(root / "n99")
    with pytest.raises(ValueError, match=r"Received: \['n01440764', .*'n99'"):
        folders.list_pictures(root, classes, complete=False)


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


def test_files_of_another_encoding_are_named(photos):
    (photos / "classes.tsv").write_bytes("n01\ta\nn02\té\n".encode("latin-1"))
    fault = r"in UTF-8: .*Received: '.*classes.tsv', where line 2 is not"
    with pytest.raises(ValueError, match=fault):
        data.load(photos)
    (photos / "classes.tsv").write_text("n01\ta\n", encoding="utf-16")
    with pytest.raises(ValueError, match="where line 1 is not"):
        data.load(photos)


# Spellings

COMPOSED, PARTS = (unicodedata.normalize(f, "Bär") for f in ("NFC", "NFD"))


def make_classes(root, *names):
    for value, name in enumerate(names):
        (root / name).mkdir(parents=True)
        picture = np.full((4, 5, 3), value, np.uint8)
        Image.fromarray(picture).save(root / name / "a.png")
    return root


@pytest.mark.parametrize(
    "one,other", [("ants", "Ants"), ("ants", "ants "), (COMPOSED, PARTS)]
)
def test_two_spellings_are_no_two_classes(tmp_path, one, other):
    if len(set(os.listdir(make_classes(tmp_path, one, other)))) == 1:
        pytest.skip("this file system takes them for one folder")
    first, second = sorted([one, other])
    fault = f"one folder, .*Received: {first!r} and {second!r} in "
    for load in (data.load, data.load_test):
        with pytest.raises(ValueError, match=fault):
            load(tmp_path)
    names = [other, one]
    assert data.load_test(tmp_path, class_names=names).class_names == names
    write_labels(tmp_path, {one: "ants", other: "Ants"})
    if one.strip() == one and other.strip() == other:
        assert sorted(data.load_test(tmp_path).class_names) == ["Ants", "ants"]


def test_a_validation_set_in_another_spelling(tmp_path):
    make_classes(tmp_path / "train", "ants", "bees")
    make_classes(tmp_path / "val", "Ants", "bees")
    fault = r"Received: \['Ants'\] in '.*val' \(rename 'Ants' to 'ants'\)"
    for load in (data.load, data.load_test):
        with pytest.raises(ValueError, match=fault):
            load(tmp_path)


# Links


@pytest.mark.parametrize("target", ["gone", "bees"])
def test_a_class_that_is_a_broken_link(tmp_path, target):
    """To what is not there, and to itself."""
    make_classes(tmp_path, "ants", "wasps")
    (tmp_path / "bees").symlink_to(target)
    fault = f"mend or remove it. Received: '.*/bees', a link to '{target}'"
    with pytest.raises(ValueError, match=fault):
        data.load(tmp_path)


def test_a_validation_set_that_is_a_broken_link(tmp_path):
    make_classes(tmp_path / "train", "ants", "bees")
    (tmp_path / "val").symlink_to("gone")
    with pytest.raises(ValueError, match="Received: '.*/val', a link to"):
        data.load(tmp_path)
    make_classes(tmp_path / "test", "bees")
    with pytest.raises(ValueError, match="Received: '.*/val', a link to"):
        data.load(tmp_path)
    assert data.load_test(tmp_path).num_pictures == 1


def test_pictures_that_are_broken_links(tmp_path):
    make_classes(tmp_path, "ants", "bees")
    (tmp_path / "ants" / "b.png").symlink_to("gone.png")
    (tmp_path / "bees" / "b.png").symlink_to("b.png")
    with pytest.raises(data.BadPicturesError) as caught:
        data.load_test(tmp_path)
    (_, gone), (_, loop) = caught.value.pictures
    assert gone == "a link that leads to no file: No such file or directory"
    assert loop.startswith("a link that leads to no file: Too many levels")
    # Of a class called train/, links in it are pictures, too.
    (tmp_path / "ants").rename(tmp_path / "train")
    with pytest.warns(UserWarning, match=r"2 file\(s\) cannot be used"):
        test = data.load_test(tmp_path, on_error="skip")
    assert test.class_names == ["bees", "train"]


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    make_classes(tmp_path, "ants", "bees")
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("bees"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    fault = r"that can be read. Received: '.*/bees' \(Permission denied\)"
    with pytest.raises(ValueError, match=fault):
        data.load(tmp_path)


def test_a_validation_folder_by_its_third_name(tmp_path):
    make_tree(tmp_path / "train")
    make_tree(tmp_path / "valid", ("n03", "n01", "n02"))
    train, held = data.load(tmp_path)
    assert (len(train.rows), len(held.rows)) == (6, 6)
    assert len(data.load_test(tmp_path).rows) == 6


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nx"])
def test_a_class_has_a_name_that_can_be_written(tmp_path, name):
    make_tree(tmp_path)
    try:
        folder = os.fsencode(tmp_path / "n03")
        os.rename(folder, folder.removesuffix(b"n03") + name)
    except OSError:
        pytest.skip("this system has no such names")
    with pytest.raises(ValueError, match="one line of Unicode.* Received: '"):
        data.load(tmp_path)
