"""Pictures with label maps become batches, or one clear report."""

import struct
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

from kanets import data
from kanets.data import folders
from kanets.data.label_maps import (
    FileLabelMaps,
    fit_label_map,
    read_label_map,
    sample_nearest,
)
from kanets.data.pictures import PictureError, fit_picture

CLASSES = ["sky", "road", "tree"]
NAMES = {"class_names": CLASSES, "ignore_label": 9}
SIZE = (8, 10)


def write_pair(root, stem, value, size=SIZE, label_map=None):
    """A picture all of `value`, and labels that repeat 0, 1, 2 and 9."""
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True, exist_ok=True)
    picture = np.full((*size, 3), value, np.uint8)
    Image.fromarray(picture).save(root / "images" / f"{stem}.png")
    if label_map is None:
        labels = np.array([0, 1, 2, 9], np.uint8)
        places = np.add.outer(np.arange(size[0]), np.arange(size[1]) + value)
        label_map = labels[places % 4]
    Image.fromarray(label_map).save(root / "labels" / f"{stem}.png")


def make_set(root, count=10, first=0, size=SIZE):
    for value in range(first, first + count):
        write_pair(root, f"{value:03}", value, size)
    return root


def values(batches):
    """The grey value of every picture, in order; checks its label map."""
    found = []
    for images, labels in batches:
        assert images.dtype == np.float32 and labels.dtype == np.int32
        assert images.shape == (len(labels), *batches.image_size, 3)
        assert labels.shape == images.shape[:3]
        grey = images[:, 0, 0, 0].astype(int)
        if batches.image_size == SIZE:
            np.testing.assert_array_equal(
                labels[:, 0, 0], np.array([0, 1, 2, 9])[grey % 4]
            )
        found += list(grey)
    return found


# Sets


def test_a_set_is_split(tmp_path):
    make_set(tmp_path)
    train, held = data.load_segmentation(
        str(tmp_path), batch_size=3, validation=0.2, **NAMES
    )
    assert isinstance(train, data.Batches)
    for batches, count in ((train, 8), (held, 2)):
        assert batches.num_pictures == len(values(batches)) == count
        assert batches.class_names == CLASSES and batches.ignore_label == 9
        assert batches.image_size == SIZE and batches.skipped == []
        assert batches.labels.dtype == np.uint8
    assert sorted(values(train) + values(held)) == list(range(10))
    assert values(held) == sorted(values(held))
    order = values(train)
    train.epoch = 1
    assert sorted(values(train)) == sorted(order) and values(train) != order
    again, _ = data.load_segmentation(tmp_path, validation=0.2, **NAMES)
    assert values(again) == order
    other = data.load_segmentation(tmp_path, validation=0.2, seed=1, **NAMES)
    assert values(other[1]) != values(held)


def test_train_and_validation_folders(tmp_path):
    make_set(tmp_path / "train", 4)
    train, held = data.load_segmentation(tmp_path, validation=0, **NAMES)
    assert held is None and train.num_pictures == 4
    train, held = data.load_segmentation(tmp_path, validation=0.25, **NAMES)
    assert (train.num_pictures, held.num_pictures) == (3, 1)
    make_set(tmp_path / "test", 2, 10)
    make_set(tmp_path / "val", 3, 20)
    train, held = data.load_segmentation(tmp_path, **NAMES)
    assert sorted(values(train)) == [0, 1, 2, 3]
    assert values(held) == [20, 21, 22]
    read = data.load_segmentation_test
    assert values(read(tmp_path, **NAMES)) == [10, 11]
    assert values(read(tmp_path, split="val", **NAMES)) == [20, 21, 22]
    assert values(read(tmp_path / "train", **NAMES)) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="Received: split='dev', source="):
        read(tmp_path, split="dev", **NAMES)


def test_classes_file(tmp_path):
    make_set(tmp_path / "train")
    read = data.load_segmentation
    with pytest.raises(ValueError, match="classes.txt must name .*source='"):
        read(tmp_path, ignore_label=9)
    file = tmp_path / "classes.txt"
    file.write_text("sky\nroad\ntree\n")
    assert read(tmp_path, ignore_label=9)[0].class_names == CLASSES
    test = data.load_segmentation_test(tmp_path / "train", ignore_label=9)
    assert test.class_names == CLASSES
    for text in ("sky\n\ntree\n", "sky\ntree\nsky\n"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"distinct names. .*\['sky', '"):
            read(tmp_path, ignore_label=9)
    file.write_bytes("sky\nstraße\ntree\n".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8: .*classes.txt', where line 2"):
        read(tmp_path, ignore_label=9)


def test_beyond_the_memory_budget(tmp_path, monkeypatch):
    make_set(tmp_path, 6, size=(9, 14))
    size = {"image_size": (4, 5)}
    kept = data.load_segmentation(tmp_path, batch_size=4, **size, **NAMES)[0]
    monkeypatch.setattr(folders, "MEMORY_BUDGET", 100)
    read = data.load_segmentation(tmp_path, batch_size=4, **size, **NAMES)[0]
    assert isinstance(read.labels, FileLabelMaps)
    for ours, theirs in zip(read, kept, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
        assert ours[1].dtype == np.int32
    for path in tmp_path.glob("labels/*.png"):
        path.write_bytes(b"")
    with pytest.raises(data.BadPicturesError, match=r"labels/.*: empty file"):
        read[0]


def test_fit_takes_the_batches(tmp_path):
    make_set(tmp_path)
    train, held = data.load_segmentation(
        tmp_path,
        class_names=[str(i) for i in range(10)],
        validation=0.3,
        batch_size=2,
    )
    model = keras.Sequential(
        [keras.Input((*SIZE, 3)), keras.layers.Conv2D(10, 1)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    turned = data.augmented(train, lambda images, labels: (images, labels))
    assert turned.ignore_label is None
    model.fit(turned, validation_data=held, verbose=0, shuffle=False)
    assert train.epoch == 0 and turned.epoch == 1


# Sizes


@pytest.mark.parametrize("size", [(4, 5), (3, 7), (13, 11), (21, 34)])
def test_label_maps_stay_on_their_pictures(tmp_path, size):
    """Both halves of a picture end where those of its label map do."""
    label_map = np.zeros((18, 24), np.uint8)
    label_map[:11, 7:] = 1
    picture = np.repeat(label_map[..., None] * 200, 3, -1)
    fitted = fit_label_map(label_map, size)
    assert fitted.shape == size and fitted.dtype == np.uint8
    grey = fit_picture(picture, size)[..., 0]
    clear = (grey < 60) | (grey > 140)
    assert clear.mean() > 0.6
    np.testing.assert_array_equal((grey > 100)[clear], fitted[clear])


@pytest.mark.parametrize(
    "box", [(0, 0, 17, 23), (2, 5, 11, 7), (1.3, 2.7, 9.1, 3.2)]
)
@pytest.mark.parametrize("size", [(5, 7), (17, 23), (40, 31)])
def test_nearest_is_pillows(box, size):
    label_map = np.random.default_rng(0).integers(0, 256, (17, 23))
    label_map = label_map.astype(np.uint8)
    top, left, rows, columns = box
    theirs = Image.fromarray(label_map).resize(
        size[::-1],
        Image.Resampling.NEAREST,
        (left, top, left + columns, top + rows),
    )
    np.testing.assert_array_equal(sample_nearest(label_map, box, size), theirs)


def test_nearest_by_hand():
    row = np.arange(6)[None]
    assert sample_nearest(row, (0, 0, 1, 6), (1, 2)).tolist() == [[1, 4]]
    assert sample_nearest(row, (0, 1, 1, 2), (1, 4)).tolist() == [[1, 1, 2, 2]]


def test_one_size_or_image_size(tmp_path):
    make_set(tmp_path, 3)
    write_pair(tmp_path, "x", 3, (9, 10))
    with pytest.raises(ValueError, match=r"'.*x.png' is \(9, 10\), image_size"):
        data.load_segmentation(tmp_path, **NAMES)
    train = data.load_segmentation(
        tmp_path, image_size=(4, 6), validation=0, **NAMES
    )[0]
    assert sorted(values(train)) == [0, 1, 2, 3]


# Label maps


def test_a_palette_gives_its_indices(tmp_path):
    label_map = np.array([[0, 1, 2], [2, 9, 0]], np.uint8)
    image = Image.fromarray(label_map).convert("P")
    image.putdata(label_map.ravel())
    image.putpalette([200, 10, 10, 0, 0, 0, 7, 7, 200] + [255] * 90)
    for number, options in enumerate(({}, {"bits": 4}, {"transparency": 1})):
        path = tmp_path / f"{number}.png"
        image.save(path, **options)
        np.testing.assert_array_equal(read_label_map(path), label_map)


@pytest.mark.parametrize(
    "image,reason",
    [
        (Image.new("RGB", (3, 2)), "8-bit grey or palette, not 'RGB'"),
        (Image.new("RGBA", (3, 2)), "not 'RGBA'"),
        (Image.new("1", (3, 2)), "not '1'"),
        (Image.new("I;16", (3, 2)), "not 'I;16"),
        (Image.new("LA", (3, 2)), "not 'LA'"),
    ],
)
def test_other_modes_are_refused(tmp_path, image, reason):
    image.save(tmp_path / "a.png")
    with pytest.raises(PictureError, match=reason):
        read_label_map(tmp_path / "a.png")


def test_grey_of_few_bits_is_refused(tmp_path):
    """Pillow scales its values, and cannot write it."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\x00\x12"))
        + chunk(b"IEND", b"")
    )
    with Image.open(path) as image:
        assert np.asarray(image).tolist() == [[17, 34]]
    with pytest.raises(PictureError, match="8-bit grey or palette, not 'L;4'"):
        read_label_map(path)


def test_damaged_label_maps(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(PictureError, match=r"empty file \(0 bytes\)"):
        read_label_map(path)
    Image.new("L", (3, 2)).save(path, format="JPEG")
    with pytest.raises(PictureError, match="not a PNG file"):
        read_label_map(path)
    noise = np.random.default_rng(0).integers(0, 256, (50, 60))
    Image.fromarray(noise.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(PictureError, match="damaged"):
        read_label_map(path)


# Faults of a set


def spoil(root):
    """Adds every fault to a good set; returns the lines of the report."""
    images, labels = root / "images", root / "labels"
    write_pair(root, "a", 50)
    (labels / "a.png").unlink()
    write_pair(root, "b", 51)
    (images / "b.png").unlink()
    write_pair(root, "c", 52, label_map=np.zeros((10, 8), np.uint8))
    write_pair(root, "d", 53)
    (labels / "d.png").write_bytes(b"")
    write_pair(root, "e", 54, label_map=np.zeros((*SIZE, 3), np.uint8))
    wrong = np.arange(80, dtype=np.uint8).reshape(SIZE) % 6
    write_pair(root, "f", 55, label_map=wrong)
    write_pair(root, "g", 56)
    (images / "g.png").write_bytes(b"x")
    write_pair(root, "h", 57)
    Image.new("RGB", SIZE).save(images / "h.jpg")
    return [
        f"{images}/a.png: no label map labels/a.png",
        f"{labels}/b.png: no picture images/b.*",
        f"{labels}/c.png: is (10, 8), its picture is (8, 10)",
        f"{labels}/d.png: empty file (0 bytes)",
        f"{labels}/e.png: a label map must be 8-bit grey or palette, not 'RGB'",
        f"{labels}/f.png: holds [3, 4, 5], which are no labels of the 3 "
        "classes and not ignore_label=9",
        f"{images}/g.png: not a picture of a known format",
        f"{images}/h.png: shares h.jpg's stem",
        f"{labels}/h.png: is (8, 10), its picture is (10, 8)",
    ]


def test_all_faults_stop_in_one_report(tmp_path):
    make_set(tmp_path / "train")
    make_set(tmp_path / "val")
    lines = spoil(tmp_path / "train") + spoil(tmp_path / "val")
    for image_size in (None, (4, 5)):
        with pytest.raises(data.BadPicturesError) as caught:
            data.load_segmentation(tmp_path, image_size=image_size, **NAMES)
        report = [f"{path}: {why}" for path, why in caught.value.pictures]
        assert sorted(report) == sorted(lines)
    with pytest.raises(data.BadPicturesError, match=r"no label map labels/a"):
        data.load_segmentation_test(tmp_path, **NAMES)


@pytest.mark.parametrize("image_size", [None, SIZE])
def test_faults_are_skipped(tmp_path, image_size):
    make_set(tmp_path)
    lines = spoil(tmp_path)
    with pytest.warns(UserWarning, match=r"9 file\(s\) .* 10 pictures remain"):
        train, held = data.load_segmentation(
            tmp_path, on_error="skip", image_size=image_size, **NAMES
        )
    assert sorted(values(train) + values(held)) == list(range(10))
    assert train.skipped == held.skipped
    skipped = [f"{path}: {why}" for path, why in train.skipped]
    assert sorted(skipped) == sorted(lines)


def test_nothing_is_left(tmp_path):
    write_pair(tmp_path / "train", "a", 1, label_map=np.full(SIZE, 7, np.uint8))
    read = data.load_segmentation
    skip = {"on_error": "skip", **NAMES}
    with pytest.raises(data.BadPicturesError, match=r"holds \[7\], which"):
        read(tmp_path, **skip)
    (tmp_path / "train" / "labels" / "a.png").unlink()
    with pytest.raises(data.BadPicturesError, match="no label map labels/a"):
        read(tmp_path, **skip)
    (tmp_path / "train" / "images" / "a.png").unlink()
    with pytest.raises(ValueError, match="must hold pictures. .*none in '.*tr"):
        read(tmp_path, **skip)
    make_set(tmp_path / "train")
    write_pair(tmp_path / "val", "a", 1, label_map=np.full(SIZE, 7, np.uint8))
    with (
        pytest.warns(UserWarning, match="10 pictures remain"),
        pytest.raises(ValueError, match="none in '.*val', 1 files skipped"),
    ):
        read(tmp_path, **skip)


def test_other_files(tmp_path):
    make_set(tmp_path)
    (tmp_path / "labels" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "labels" / "000.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"1 file\(s\) without .*000.json"):
        train, _ = data.load_segmentation(tmp_path, validation=0, **NAMES)
    assert train.num_pictures == 10
    (tmp_path / "images" / "city").mkdir()
    with pytest.raises(ValueError, match="directly in their folder. .*city'"):
        data.load_segmentation(tmp_path, **NAMES)


@pytest.mark.parametrize(
    "arguments,text",
    [
        ({"source": "phtos"}, "folder that exists. Received: source=phtos"),
        ({"class_names": ["sky"]}, "2 to 256 classes. Received: 1 class names"),
        ({"ignore_label": 256}, "int in 0..255, or None. .*ignore_label=256"),
        ({"ignore_label": True}, "Received: ignore_label=True"),
        ({"ignore_label": 1.0}, "Received: ignore_label=1.0"),
        ({"validation": 0.04}, "to validate on .*validation=0.04 of 10"),
        ({"validation": 0.96}, "Received: validation=0.96 of 10 pictures"),
        ({"validation": 1}, "Received: validation=1"),
        ({"image_size": 8}, "Received: image_size=8"),
        ({"on_error": "skp"}, "Received: on_error='skp'"),
    ],
)
def test_argument_errors(tmp_path, arguments, text):
    arguments = {"source": make_set(tmp_path), **NAMES, **arguments}
    with pytest.raises(ValueError, match=text):
        data.load_segmentation(**arguments)


def test_a_folder_that_is_no_set(tmp_path):
    with pytest.raises(ValueError, match="train/ with these. .*which holds"):
        data.load_segmentation(tmp_path, **NAMES)
    make_set(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "masks")
    with pytest.raises(ValueError, match="no labels/ in "):
        data.load_segmentation_test(tmp_path, **NAMES)


def test_class_folders_and_label_maps_are_not_confused(tmp_path):
    make_set(tmp_path / "train", 2)
    with pytest.raises(ValueError, match="load_segmentation.*train"):
        data.load(tmp_path)
    (tmp_path / "classes" / "ant").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"which holds \['ant'\]"):
        data.load_segmentation(tmp_path / "classes", **NAMES)
