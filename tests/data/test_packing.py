"""A pack is loaded as the folder it was made of, and says what is wrong."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from kanets import cli, data, files
from kanets.data import batches, folders, packing
from kanets.data.pictures import fit_picture, read_picture
from kanets.data.survey import survey
from tests.data.test_loading import ROOT, make_tree, small_model, write


@pytest.fixture
def tree(tmp_path):
    """Three parts, of which one lacks a class."""
    root = tmp_path / "photos"
    make_tree(root / "train")
    make_tree(root / "val", (3, 1, 2))
    make_tree(root / "test", (0, 2, 2))
    return root


def same(ours, theirs):
    """Whether two sets give the same batches, by the same names."""
    assert ours.class_names == theirs.class_names
    assert ours.num_pictures == theirs.num_pictures
    assert ours.is_test == theirs.is_test
    for (x, y), (other, labels) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x, other)
        np.testing.assert_array_equal(y, labels)
    roots = [path.rsplit("/", 3)[-3:] for path in theirs.paths]
    assert [path.rsplit("/", 3)[-3:] for path in ours.paths] == roots


@pytest.mark.parametrize("budget", [2**31, 0])
def test_it_is_loaded_as_the_folder(tree, tmp_path, monkeypatch, budget):
    """Kept decoded, and read again for each batch."""
    monkeypatch.setattr(folders, "MEMORY_BUDGET", budget)
    index = data.pack(tree, tmp_path / "pack", shard_size=10)
    parts = index["parts"]
    assert {name: part["pictures"] for name, part in parts.items()} == {
        "train": 24,
        "val": 6,
        "test": 4,
    }
    assert parts["test"]["counts"] == {"ant": 0, "bee": 2, "wasp": 2}
    assert len(parts["train"]["shards"]) == 3
    options = {"image_size": (5, 6), "batch_size": 4, "seed": 3}
    ours = data.load(tmp_path / "pack", **options)
    for one, other in zip(ours, data.load(tree, **options), strict=True):
        same(one, other)
    for split in (None, "val", "train"):
        same(
            data.load_test(tmp_path / "pack", split=split),
            data.load_test(tree, split=split),
        )
    names = ["wasp", "fly", "ant", "bee"]
    same(
        data.load_test(str(tmp_path / "pack"), class_names=names),
        data.load_test(tree, class_names=names),
    )
    assert survey(tmp_path / "pack") == survey(tree)


def test_a_folder_without_parts(tree, tmp_path):
    index = data.pack(tree / "train", tmp_path / "pack")
    assert list(index["parts"]) == ["all"]
    for one, other in zip(
        data.load(tmp_path / "pack", validation=0.25, seed=1),
        data.load(tree / "train", validation=0.25, seed=1),
        strict=True,
    ):
        assert one.num_pictures == other.num_pictures
        for (x, y), (pictures, labels) in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, pictures)
            np.testing.assert_array_equal(y, labels)
    test = data.load_test(tmp_path / "pack")
    assert test.num_pictures == 24 and test.paths[0] == "ant/000.png"


def test_labels_of_a_table_and_of_imagenet(tmp_path):
    make_tree(tmp_path / "named")
    (tmp_path / "named" / "classes.tsv").write_text(
        "ant\tfourmi\nbee\tabeille\nwasp\tgu\u00eape\n", encoding="utf-8"
    )
    index = data.pack(tmp_path / "named", tmp_path / "pack")
    assert index["classes"] == ["fourmi", "abeille", "gu\u00eape"]
    names = list(folders.imagenet_names().values())
    for place in (5, 3):
        write(
            tmp_path / "ids" / list(folders.imagenet_names())[place] / "0.png",
            1,
        )
    data.pack(tmp_path / "ids", tmp_path / "other")
    found = data.load_test(tmp_path / "other", class_names=names)
    assert [int(y) for _, labels in found for y in labels] == [3, 5]


def test_bad_pictures_are_named_as_in_the_folder(tree, tmp_path):
    (tree / "train" / "bee" / "000.png").write_bytes(b"")
    (tree / "train" / "bee" / "005.png").write_bytes(b"no picture")
    data.pack(tree, tmp_path / "pack")
    for source in (tree, tmp_path / "pack"):
        with pytest.raises(data.BadPicturesError) as error:
            data.load(source)
        assert [
            (str(path).rsplit("/", 3)[-3:], why)
            for path, why in error.value.pictures
        ] == [
            (["train", "bee", "000.png"], "empty file (0 bytes)"),
            (["train", "bee", "005.png"], "not a picture of a known format"),
        ]


def test_what_is_written_is_a_tfrecord(tree, tmp_path):
    import tensorflow as tf

    data.pack(tree, tmp_path / "pack", shard_size=10)
    kinds = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/class/text": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
    }
    shards = sorted(map(str, (tmp_path / "pack").glob("train-*.tfrecord")))
    paths, labels = folders.list_pictures(
        tree / "train", ["ant", "bee", "wasp"], complete=True
    )
    for example, path, label in zip(
        tf.data.TFRecordDataset(shards), paths, labels, strict=True
    ):
        found = tf.io.parse_single_example(example, kinds)
        found = {name: value.numpy() for name, value in found.items()}
        assert found["image/encoded"] == path.read_bytes()
        assert found["image/class/label"] == label
        assert found["image/class/text"].decode() == path.parent.name
        name = path.relative_to(tree).as_posix()
        assert found["image/filename"].decode() == name


def test_it_continues(tree, tmp_path, monkeypatch):
    to = tmp_path / "pack"
    data.pack(tree, tmp_path / "whole", shard_size=5)
    write_shard, left = packing._write_shard, [3]

    def stop(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write_shard(*arguments)

    monkeypatch.setattr(packing, "_write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        data.pack(tree, to, shard_size=5)
    shards = sorted(path.name for path in to.glob("*.tfrecord"))
    assert len(shards) == 3 and not (to / "index.json").exists()
    before = {name: (to / name).stat() for name in shards}
    left[0] = 100
    data.pack(tree, to, shard_size=5)
    assert left[0] == 100 - (5 + 2 + 1 - 3)
    assert all((to / name).stat() == stat for name, stat in before.items())
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (to / path.name).read_bytes()
    with pytest.raises(ValueError, match="of one folder as it is.*of others"):
        data.pack(tree, to, shard_size=6)
    write(tree / "train" / "ant" / "new.png", 3)
    with pytest.raises(ValueError, match="of one folder as it is.*of others"):
        data.pack(tree, to, shard_size=5)
    with files.locked(to), pytest.raises(BlockingIOError, match="in use by"):
        data.pack(tree, to, shard_size=5)


def test_what_is_wrong_is_said(tree, tmp_path):
    to = tmp_path / "pack"
    data.pack(tree, to)
    with pytest.raises(ValueError, match=r"class_names=\['ant'\].*'bee', 'w"):
        data.load_test(to, class_names=["ant"])
    with pytest.raises(ValueError, match="one of more. .* train, val, test in"):
        data.load_test(to, split="more")
    with pytest.raises(ValueError, match="must be a folder of class.*pack"):
        data.pack(to, tmp_path / "again")
    with pytest.raises(ValueError, match="`shard_size` must .*shard_size=0"):
        data.pack(tree, tmp_path / "again", shard_size=0)
    [shard] = to.glob("train-*.tfrecord")
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"have {size} bytes.*with {size - 1}"):
        data.load(to)
    shard.unlink()
    with pytest.raises(ValueError, match=f"have {size} bytes.*with none"):
        data.load(to)
    index = json.loads((to / "index.json").read_text())
    (to / "index.json").write_text(json.dumps({**index, "version": 2}))
    with pytest.raises(ValueError, match="version 1.*Received: version 2"):
        data.load(to)


def test_a_part_behind_a_broken_link_is_not_left_out(tree, tmp_path):
    shutil.rmtree(tree / "val")
    (tree / "val").symlink_to("nowhere")
    with pytest.raises(ValueError, match="must lead somewhere.*val"):
        data.pack(tree, tmp_path / "pack")


def test_a_shard_that_goes_missing_is_named(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MEMORY_BUDGET", 0)
    data.pack(tree, tmp_path / "pack")
    train, _ = data.load(tmp_path / "pack")
    shutil.rmtree(tmp_path / "pack")
    with pytest.raises(
        batches.BadPicturesError, match=r"ant/000.png: .*No such file"
    ):
        train.pictures.take([0])


def test_a_list_that_is_cut_or_missing_is_named(tree, tmp_path):
    data.pack(tree, tmp_path / "pack")
    listing = sorted((tmp_path / "pack").glob("train*.jsonl"))[0]
    lines = listing.read_text().splitlines(keepends=True)
    listing.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=rf"have {len(lines)} lines.*jsonl'"):
        data.load(tmp_path / "pack")
    listing.unlink()
    with pytest.raises(ValueError, match="jsonl' with 0"):
        data.load(tmp_path / "pack")


def test_the_command_and_training(tree, tmp_path, capsys):
    to = tmp_path / "pack"
    assert cli.main(["pack", str(tree), "--to", str(to)]) == 0
    first, *_ = lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert first.startswith(f"{to}, train: 24 pictures of 3 classes in 1 shar")
    assert cli.main(["pack", str(tree), "--to", str(to), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [part["pictures"] for part in found] == [24, 6, 4]
    train, val = data.load(to)
    model = small_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(train, validation_data=val, verbose=0)


@pytest.mark.thorough
def test_loading_needs_no_tensorflow(tree, tmp_path):
    data.pack(tree, tmp_path / "pack")
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from kanets.data import records\n"
        "from pathlib import Path\n"
        "root = Path(sys.argv[1]); index = records.read_index(root)\n"
        "found, _ = records.list_records(root, index, 'val', "
        "index['classes'])\n"
        "assert records.read(found[0]).shape == (8, 10, 3)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pack")],
        cwd=ROOT,
        check=True,
        env={"KERAS_BACKEND": "jax", "PATH": ""},
        timeout=300,
    )


# Keras says so of whatever does not tell its length.
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_fit_takes_a_loader_of_grain():
    grain = pytest.importorskip("grain", reason="Grain is not installed")
    images = np.zeros((16, 8, 10, 3), np.float32)
    labels = np.arange(16) % 3
    loader = (
        grain.MapDataset.source(list(zip(images, labels, strict=True)))
        .shuffle(seed=0)
        .batch(4)
        .to_iter_dataset()
    )
    model = small_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(loader, epochs=2, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 2
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_fit_takes_array_records_through_grain(tree, tmp_path):
    grain = pytest.importorskip("grain", reason="Grain is not installed")
    records = pytest.importorskip(
        "array_record.python.array_record_module",
        reason="array_record is not installed",
    )
    import tensorflow as tf

    paths, labels = folders.list_pictures(
        tree / "train", ["ant", "bee", "wasp"], complete=True
    )
    file = tmp_path / "train.array_record"
    # One record a group, for a loader that asks for them in any order.
    writer = records.ArrayRecordWriter(str(file), "group_size:1")
    for path, label in zip(paths, labels, strict=True):
        writer.write(packing._record(path.read_bytes(), path.name, label, ""))
    writer.close()
    seen = []

    def decoded(record):
        features = tf.train.Example.FromString(record).features.feature
        [content] = features["image/encoded"].bytes_list.value
        [label] = features["image/class/label"].int64_list.value
        seen.append(label)
        picture = read_picture(io.BytesIO(content))
        return fit_picture(picture, (8, 10)).astype("float32"), label

    loader = (
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource(str(file)))
        .shuffle(seed=0)
        .map(decoded)
        .batch(4)
        .to_iter_dataset(grain.ReadOptions(num_threads=0))
    )
    pictures = np.concatenate([pictures for pictures, _ in loader])
    assert pictures.shape == (24, 8, 10, 3)
    assert sorted(seen) == sorted(labels) and seen != list(labels)
    model = small_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(loader, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert len(history.history["loss"]) == 2
