"""Folders, arrays and TFDS names become batches, or one clear error."""

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kanets import data
from kanets.data import folders, loading
from kanets.data.pictures import fit_picture, read_picture

ROOT = Path(__file__).parents[2]
CLASSES = ("ant", "bee", "wasp")


def write(path, value, size=(8, 10), **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path, **kwargs)
    return path


def make_tree(root, counts=(7, 12, 5), size=(8, 10)):
    """A class-folder tree; picture `i` of class `c` is all `20 * c + i`."""
    for c, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
        for i in range(count):
            write(root / name / f"{i:03}.png", 20 * c + i, size)
    return root


def make_arrays(count=30, classes=3):
    images = np.zeros((count, 5, 7, 3), np.uint8)
    images[:] = np.arange(count)[:, None, None, None]
    return images, np.arange(count) % classes


def values(batches):
    """The grey value of every picture, in order; checks the labels' form."""
    found = []
    for images, labels in batches:
        images, labels = np.asarray(images), np.asarray(labels)
        assert images.dtype == np.float32 and labels.dtype == np.int32
        assert images.shape == (len(labels), *batches.image_size, 3)
        found += list(images[:, 0, 0, 0].astype(int))
    return found


def small_model(image_size=(8, 10), classes=3):
    return keras.Sequential(
        [
            keras.Input((*image_size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


# Folders


def test_class_folders(tmp_path):
    make_tree(tmp_path)
    train, held = data.load(str(tmp_path), batch_size=4, validation=0.25)
    assert isinstance(train, data.Batches)
    assert train.class_names == held.class_names == list(CLASSES)
    assert train.image_size == (8, 10) and train.skipped == []
    # 0.25 of 7, 12 and 5, to nearest: 2, 3 and 1.
    assert train.num_pictures == 18 and held.num_pictures == 6
    assert len(train) == 5 and train[4][1].shape == (2,)
    assert len(set(values(train)) | set(values(held))) == 24
    for images, labels in [*train, *held]:
        np.testing.assert_array_equal(images[:, 0, 0, 0] // 20, labels)
    assert values(held) == sorted(values(held))


def test_train_and_validation_folders(tmp_path):
    make_tree(tmp_path / "train")
    make_tree(tmp_path / "test", (1, 1, 1))
    train, held = data.load(tmp_path)
    assert (train.num_pictures, held.num_pictures) == (24, 3)
    make_tree(tmp_path / "val", (2, 0, 2))
    train, held = data.load(tmp_path, validation=0)
    assert (train.num_pictures, held.num_pictures) == (24, 4)
    assert values(held) == [0, 1, 40, 41]


def test_train_folder_alone_is_split(tmp_path):
    make_tree(tmp_path / "train")
    train, held = data.load(tmp_path, validation=0.2)
    assert train.num_pictures + held.num_pictures == 24


def test_a_class_called_train(tmp_path):
    write(tmp_path / "train" / "a.png", 1)
    write(tmp_path / "boat" / "a.png", 2)
    train, held = data.load(tmp_path, validation=0)
    assert train.class_names == ["boat", "train"] and held is None


def test_pictures_of_many_sizes_are_fitted(tmp_path):
    rng = np.random.default_rng(0)
    for i, size in enumerate([(31, 17), (12, 40), (9, 9), (64, 33)]):
        image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        path = tmp_path / CLASSES[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    batches = data.load_test(tmp_path, image_size=[11, 13])
    assert batches.image_size == (11, 13)
    paths = sorted(tmp_path.glob("*/*.png"))
    for image, path in zip(batches[0][0], paths, strict=True):
        np.testing.assert_array_equal(
            image, fit_picture(read_picture(path), (11, 13))
        )


def test_beyond_the_memory_budget(tmp_path, monkeypatch):
    make_tree(tmp_path)
    kept = data.load(tmp_path, image_size=(5, 6), batch_size=5)[0]
    monkeypatch.setattr(folders, "MEMORY_BUDGET", 1000)
    read = data.load(tmp_path, image_size=(5, 6), batch_size=5)[0]
    assert type(kept.pictures) is not type(read.pictures)
    for ours, theirs in zip(read, kept, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(data.BadPicturesError, match="empty file"):
        read[0]


def test_hidden_and_other_files(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    assert data.load(tmp_path, validation=0)[0].num_pictures == 24
    (tmp_path / "bee" / "notes.txt").write_text("x")
    with pytest.warns(UserWarning, match=r"1 file\(s\) without .*notes.txt"):
        train, _ = data.load(tmp_path, validation=0)
    assert train.num_pictures == 24


# Bad pictures


def spoil(root):
    (root / "ant" / "100.jpg").write_bytes(b"")
    (root / "bee" / "100.jpg").write_text("not a picture")
    path = write(root / "wasp" / "100.jpg", 9, (64, 80))
    path.write_bytes(path.read_bytes()[:-40])


def test_bad_pictures_stop_in_one_report(tmp_path):
    make_tree(tmp_path)
    spoil(tmp_path)
    with pytest.raises(data.BadPicturesError) as caught:
        data.load(tmp_path)
    assert len(caught.value.pictures) == 3
    for text in (
        "Received: 3 bad picture(s)",
        f"{tmp_path}/ant/100.jpg: empty file (0 bytes)",
        f"{tmp_path}/bee/100.jpg: not a picture of a known format",
        f"{tmp_path}/wasp/100.jpg: damaged: image file is truncated",
    ):
        assert text in str(caught.value)


def test_bad_pictures_are_skipped(tmp_path):
    make_tree(tmp_path)
    spoil(tmp_path)
    with pytest.warns(UserWarning, match=r"3 file\(s\) .* 24 pictures remain"):
        train, held = data.load(tmp_path, on_error="skip")
    assert train.num_pictures + held.num_pictures == 24
    assert [Path(p).parent.name for p, _ in train.skipped] == list(CLASSES)
    assert held.skipped == train.skipped
    clean = data.load(make_tree(tmp_path / "x"))[0]
    assert values(train) == values(clean)


def test_bad_pictures_in_validation_are_in_the_report(tmp_path):
    make_tree(tmp_path / "train")
    make_tree(tmp_path / "val")
    spoil(tmp_path / "train")
    spoil(tmp_path / "val")
    with pytest.raises(data.BadPicturesError, match="6 bad"):
        data.load(tmp_path)
    with pytest.raises(data.BadPicturesError, match="3 bad"):
        data.load_test(tmp_path)


def test_a_long_report_is_cut():
    error = data.BadPicturesError([(f"{i}.jpg", "why") for i in range(30)])
    assert "30 bad" in str(error) and "... and 10 more" in str(error)
    assert len(error.pictures) == 30


def test_all_bad_or_a_class_all_bad(tmp_path):
    make_tree(tmp_path, (1, 3, 3))
    (tmp_path / "ant" / "000.png").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="left out.* 6 pictures remain"),
        pytest.raises(ValueError, match=r"readable training .*none for \['a"),
    ):
        data.load(tmp_path, on_error="skip", validation=0)
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(data.BadPicturesError, match="7 bad"):
        data.load(tmp_path, on_error="skip")


# Errors of a folder


def test_folder_errors(tmp_path):
    def fails(text, **kwargs):
        with pytest.raises(ValueError, match=text):
            data.load(tmp_path, **kwargs)

    fails("one folder per class .*Received: a folder without folders")
    (tmp_path / "ant").mkdir()
    fails("Every class must have a picture. Received: no picture in '.*ant'")
    (tmp_path / "ant" / "a.svg").write_bytes(b"x")
    fails(r"no picture in '.*ant' \(1 other file\(s\), for example 'a.svg'\)")
    (tmp_path / "ant" / "a.svg").unlink()
    write(tmp_path / "ant" / "a.png", 1)
    fails(
        r"at least two classes. Received: class_names=\['ant'\]", validation=0
    )
    write(tmp_path / "bee" / "a.png", 1, (9, 10))
    fails(r"'.*ant/a.png' is \(8, 10\), '.*bee/a.png' is \(9, 10\)")
    size = {"image_size": (8, 8)}
    fails("a picture to validate on .*validation=0.1 of 2", **size)
    fails(
        "keep a training picture .*1 .*'ant', validation=0.5",
        validation=0.5,
        **size,
    )
    fails(r"class_names=\['bee'\]. Received: \['ant'\]", class_names=["bee"])
    fails(
        "no picture in '.*cat'", class_names=["ant", "bee", "cat"], validation=0
    )
    write(tmp_path / "bee" / "more" / "a.png", 1)
    fails("directly in their folder. Received: the folder '.*bee/more'")


def test_validation_folder_with_an_unknown_class(tmp_path):
    make_tree(tmp_path / "train")
    write(tmp_path / "val" / "moth" / "a.png", 3)
    with pytest.raises(ValueError, match=r"Received: \['moth'\] in '.*val'"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    "kwargs,text",
    [
        ({"on_error": "skp"}, "'stop' or 'skip'. Received: on_error='skp'"),
        ({"validation": 1}, r"fraction in \[0, 1\). Received: validation=1"),
        ({"validation": -0.1}, "Received: validation=-0.1"),
        ({"validation": float("nan")}, "Received: validation=nan"),
        ({"validation": True}, "Received: validation=True"),
        ({"validation": "0.1"}, "Received: validation='0.1'"),
        ({"image_size": 32}, "two positive ints, or None. .*image_size=32"),
        ({"image_size": (32, 0)}, r"Received: image_size=\(32, 0\)"),
        ({"image_size": (32, 3.5)}, r"Received: image_size=\(32, 3.5\)"),
        ({"batch_size": 0}, "positive int. Received: batch_size=0"),
        ({"seed": -1}, "non-negative int. Received: seed=-1"),
        ({"class_names": ["a", "a"]}, "distinct strings. Received: class_na"),
        ({"class_names": "ab"}, "distinct strings. Received: class_names='ab'"),
    ],
)
def test_argument_errors(kwargs, text):
    with pytest.raises(ValueError, match=text):
        data.load(make_arrays(), **kwargs)


# Order


def test_order_depends_on_seed_and_epoch_alone():
    def epochs(seed):
        train, _ = data.load(make_arrays(), seed=seed, batch_size=4)
        found = []
        for epoch in range(3):
            train.epoch = epoch
            found.append(values(train))
        return found

    first = epochs(5)
    assert epochs(5) == first and epochs(6) != first
    assert len({tuple(order) for order in first}) == 3
    assert len({tuple(sorted(order)) for order in first}) == 1
    train, _ = data.load(make_arrays(), seed=5, batch_size=4)
    train.epoch = 2
    assert values(train) == first[2]


@pytest.mark.parametrize("pin", [True, False])
@pytest.mark.parametrize("initial_epoch", [0, 2])
def test_fit_advances_the_epoch(initial_epoch, pin):
    train, held = data.load(make_arrays(43), batch_size=4, validation=0.2)
    begun = []

    def note(epoch, logs):
        if pin:
            train.epoch = epoch
        begun.append(train.epoch)

    model = small_model(train.image_size)
    loss = "sparse_categorical_crossentropy"
    model.compile("sgd", loss, metrics=["accuracy"])
    model.fit(
        train,
        validation_data=held,
        epochs=4,
        initial_epoch=initial_epoch,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=note)],
    )
    first = initial_epoch if pin else 0
    assert begun == list(range(first, first + 4 - initial_epoch))
    assert train.epoch == begun[-1] + 1


def fit_and_watch(train, **arguments):
    """The grey values that a model is trained on, a list for each epoch."""
    seen = []

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(10)

        def call(self, images):
            return self.dense(images[:, 0, 0, :])

        def train_step(self, *args):
            images = np.asarray(args[-1][0])
            seen[-1].extend(images[:, 0, 0, 0].astype(int).tolist())
            return super().train_step(*args)

    model = Model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    begin = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append([])
    )
    callbacks = [begin, *arguments.pop("callbacks", ())]
    model.fit(train, shuffle=False, verbose=0, callbacks=callbacks, **arguments)
    return seen


@pytest.mark.parametrize("workers", [1, 3])
def test_fit_sees_the_order_of_the_epoch(workers):
    if workers > 1 and keras.backend.backend() == "jax":
        pytest.skip("Keras serves stale batches in the first epoch")
    train, _ = data.load(make_arrays(43), batch_size=4, seed=3, validation=0)
    train.workers = workers

    class Pin(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            train.epoch = epoch

    seen = fit_and_watch(train, epochs=4, initial_epoch=2, callbacks=[Pin()])
    expected = []
    for epoch in (2, 3):
        train.epoch = epoch
        expected.append(values(train))
    assert seen == expected


@pytest.mark.parametrize("workers", [1, 3])
def test_steps_per_epoch_go_on_through_the_data(workers):
    """More batches than Keras's queue holds, and two whole passes."""
    if workers > 1 and keras.backend.backend() == "jax":
        pytest.skip("Keras drops a batch it took a look at")
    arrays = make_arrays(80)
    train, _ = data.load(arrays, batch_size=4, seed=3, validation=0)
    train.workers = workers
    seen = fit_and_watch(train, epochs=8, steps_per_epoch=5)
    assert [len(epoch) for epoch in seen] == [20] * 8
    again, _ = data.load(arrays, batch_size=4, seed=3, validation=0)
    for start in (0, 4):
        assert sum(seen[start : start + 4], []) == values(again)
        again.epoch += 1


def test_steps_that_do_not_divide_a_pass():
    train, _ = data.load(make_arrays(24), batch_size=4, validation=0)
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        seen = fit_and_watch(train, epochs=3, steps_per_epoch=4)
    assert [len(epoch) for epoch in seen] == [16, 8, 16]
    assert sorted(seen[0] + seen[1]) == list(range(24))
    assert seen[2] != seen[0]
    train, _ = data.load(make_arrays(24), batch_size=4, validation=0)
    steps = data.Steps(train, 4)
    equal = fit_and_watch(steps, epochs=3)
    assert [len(epoch) for epoch in equal] == [16] * 3
    assert sum(seen, []) == sum(equal, [])[:40]
    assert steps.epoch == 3 and train.epoch == 0


def test_steps_are_batches():
    train, _ = data.load(make_arrays(24), batch_size=4, validation=0)
    noisy = data.augmented(data.Steps(train, 4), Noise())
    assert len(noisy) == 4 and noisy.class_names == train.class_names
    noisy.epoch = 1
    same = data.Steps(data.augmented(train, Noise()), 4)
    same.epoch = 1
    for ours, theirs in zip(noisy, same, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])


# Augmentation


class Noise:
    """Adds seeded noise; `reseed` is the whole contract."""

    def reseed(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, images, labels):
        return images + self.rng.normal(size=images.shape), labels


def test_augmented_function_is_reseeded():
    train, _ = data.load(make_arrays(), batch_size=7)
    noisy = data.augmented(train, Noise())
    assert isinstance(noisy, data.Batches) and len(noisy) == len(train)
    first = noisy[1][0]
    assert first.dtype == np.float32
    np.testing.assert_array_equal(noisy[1][0], first)
    assert np.abs(first - train[1][0]).max() > 0.1
    noise = first - train[1][0]
    assert np.abs(noisy[0][0] - train[0][0] - noise).max() > 0.1
    noisy.epoch = 1
    assert train.epoch == 0
    again = data.augmented(data.load(make_arrays(), batch_size=7)[0], Noise())
    again.epoch = 1
    np.testing.assert_array_equal(again[1][0], noisy[1][0])
    twice = data.augmented(noisy, lambda images, labels: (images, labels + 1))
    np.testing.assert_array_equal(twice[1][0], noisy[1][0])
    np.testing.assert_array_equal(twice[1][1], noisy[1][1] + 1)


def test_augmented_with_a_keras_layer():
    train, held = data.load(make_arrays(), batch_size=7)
    layer = keras.layers.RandomBrightness(0.5, seed=1)
    bright = data.augmented(train, layer)
    assert np.abs(bright[0][0] - train[0][0]).max() > 0
    assert bright.class_names == train.class_names
    model = small_model(train.image_size)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(bright, validation_data=held, verbose=0)


def test_augmented_needs_a_callable():
    with pytest.raises(TypeError, match="a callable. Received: transform='x'"):
        data.augmented(data.load(make_arrays())[0], "x")


# Arrays


def test_arrays():
    train, held = data.load(make_arrays(), batch_size=8, validation=0.2)
    assert (train.num_pictures, held.num_pictures) == (24, 6)
    assert train.class_names == ["0", "1", "2"]
    assert np.bincount(np.concatenate([y for _, y in held])).tolist() == [2] * 3
    for images, labels in train:
        np.testing.assert_array_equal(images[:, 0, 0, 0] % 3, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 5, 7, 1)])
@pytest.mark.parametrize("image_size", [None, (3, 4)])
def test_grey_arrays(dtype, shape, image_size):
    images = (np.arange(6 * 5 * 7).reshape(shape) % 256).astype(dtype)
    labels = np.array([[0], [1]] * 3, np.uint8)
    batches = data.load_test((images, labels), image_size=image_size)
    assert values(batches)[:1] == [0] or image_size is not None
    first = batches[0][0]
    assert first.shape == (6, *(image_size or (5, 7)), 3)
    assert (first[..., 0] == first[..., 2]).all() and first.max() > 100


def test_dict_of_arrays():
    x, y = make_arrays()
    source = {"train": (x[:20], y[:20]), "validation": (x[20:], y[20:])}
    train, held = data.load(source, batch_size=64, class_names=list("abc"))
    assert sorted(values(train)) == list(range(20))
    assert values(held) == list(range(20, 30))
    assert held.class_names == ["a", "b", "c"]
    assert values(data.load_test(source)) == values(held)
    train, held = data.load({"train": (x, y)}, validation=0)
    assert held is None and train.num_pictures == 30


X, Y = make_arrays()
NAN = X.astype("float32")
NAN[3, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    "source,text",
    [
        ((X, np.eye(3)[Y]), r"not one-hot\). .*labels of shape \(30, 3\)"),
        ((X, Y[:-1]), r"30 pictures .*labels of shape \(29,\)"),
        ((X, Y * 1.0), "must be integers. Received: labels of dtype float64"),
        ((X, Y - 1), "not be negative. Received: label -1 at index 0"),
        ((X, Y + 2**32), "from 0, to 1,000,000 .* label 429496729\\d at index"),
        ((X, Y * 2), r"training picture. Received: none for \['1', '3'\]"),
        ((X, Y * 0), r"two classes. Received: class_names=\['0'\]"),
        ((NAN, Y), "finite. Received: images with 1 NaN or infinite"),
        ((X / 255, Y), r"hold 0..255 \(scale .*Received: images from 0.0 to"),
        ((X - 5.0, Y), "Received: images from -5.0 to 24.0"),
        ((X.astype(int), Y), "or floats .*Received: images of dtype int64"),
        ((X[..., :2], Y), r"Received: images of shape \(30, 5, 7, 2\)"),
        ((X[:0], Y[:0]), r"Received: images of shape \(0, 5, 7, 3\)"),
        ((X, Y, Y), "pair .*Received: tuple of 3 parts"),
        ({"test": (X, Y)}, r"key 'train' .*Received: keys \['test'\]"),
        (
            {"train": (X, Y), "validation": (X[:, :4], Y)},
            r"one shape .*\(5, 7, 3\) uint8 and \(4, 7, 3\) uint8",
        ),
        ({"train": (X, Y), "validation": (X, Y + 1)}, "3. Received: label 3"),
        (X, "Received: source of type ndarray"),
        (None, "Received: source of type NoneType"),
    ],
)
def test_array_errors(source, text):
    with pytest.raises(ValueError, match=text):
        data.load(source)


def test_label_out_of_range():
    text = "number of classes, 2. Received: label 2 at index 2"
    with pytest.raises(ValueError, match=text):
        data.load((X, Y), class_names=["a", "b"])
    with pytest.raises(ValueError, match=text):
        data.load_test((X, Y), class_names=["a", "b"])


# Evaluation sets


def test_load_test_folder(tmp_path):
    make_tree(tmp_path / "train")
    make_tree(tmp_path / "val", (2, 2, 2))
    assert values(data.load_test(tmp_path)) == [0, 1, 20, 21, 40, 41]
    write(tmp_path / "test" / "wasp" / "a.png", 9)
    found = data.load_test(tmp_path)
    # The labels are those of train/, though test/ lacks two classes.
    assert found.class_names == list(CLASSES)
    assert found[0][1].tolist() == [2]
    assert data.load_test(tmp_path, split="val").num_pictures == 6
    assert data.load_test(tmp_path / "test").class_names == ["wasp"]
    with pytest.raises(ValueError, match="Received: split='dev', source="):
        data.load_test(tmp_path, split="dev")
    names = ["moth", "wasp", "bee", "ant"]
    found = data.load_test(tmp_path, split="val", class_names=names)
    assert found.class_names == names
    assert np.concatenate([y for _, y in found]).tolist() == [1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match=r"Received: \['wasp'\] in "):
        data.load_test(tmp_path, class_names=["ant", "bee"])
    with pytest.raises(ValueError, match="must hold pictures. Received: none"):
        (tmp_path / "empty" / "ant").mkdir(parents=True)
        data.load_test(tmp_path / "empty")


def test_load_test_arrays():
    found = data.load_test((X, Y), batch_size=7)
    assert values(found) == list(range(30)) and found[4][1].shape == (2,)
    found.epoch = 3
    assert values(found) == list(range(30))
    with pytest.raises(ValueError, match="needs a folder, .*split='val'"):
        data.load_test((X, Y), split="val")
    with pytest.raises(ValueError, match=r"Received: keys \['train'\]"):
        data.load_test({"train": (X, Y)})
    with pytest.raises(IndexError, match=r"\[0, 5\). Received: index=5"):
        found[5]


# TensorFlow Datasets


@pytest.fixture
def mock_tfds():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=23):
        yield tfds


@pytest.mark.thorough
def test_tfds(mock_tfds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, held = data.load("tfds:cifar10", batch_size=5, image_size=(16, 20))
    for batches in (train, held):
        assert len(batches.class_names) == 10
        assert batches.image_size == (16, 20) and batches.skipped == []
        assert batches.num_pictures == len(values(batches)) == 23
    pictures = [tuple(images[:, 0, 0, 0].numpy()) for images, _ in held]
    again = [tuple(images[:, 0, 0, 0].numpy()) for images, _ in held]
    assert pictures == again and len(pictures[-1]) == 3
    same, _ = data.load("cifar10", batch_size=5, image_size=(16, 20))
    other, _ = data.load("cifar10", batch_size=5, seed=9, image_size=(16, 20))
    first = [values(same), values(same)]
    assert first == [values(b) for b in [data_again(seed=0)] * 2]
    assert first[0] != first[1] and first[0] != values(other)
    model = small_model((16, 20), 10)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(
        data.augmented(train, keras.layers.RandomFlip(seed=0)),
        validation_data=held,
        shuffle=False,
        verbose=0,
    )


def data_again(seed):
    return data.load("cifar10", batch_size=5, seed=seed, image_size=(16, 20))[0]


@pytest.mark.thorough
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="as layers in tf.data"
)
def test_streams_are_repeated_from_any_epoch(mock_tfds, monkeypatch):
    for module in ("batches", "tfds"):
        monkeypatch.setattr(f"kanets.data.{module}.MEMORY_BUDGET", 0)

    def stream():
        train, _ = data.load("mnist", batch_size=5, seed=4)
        assert data.gathered(train) is train and train.cardinality() == 5
        layer = keras.layers.RandomBrightness(0.5)  # seeded by chance
        return train, data.augmented(train, layer)

    plain, bright = stream()
    order = [values(plain) for _ in range(3)]
    assert len({tuple(values) for values in order}) == 3
    assert len({tuple(sorted(values)) for values in order}) == 1
    assert plain.epoch == 3 and bright.epoch == 0
    plain.epoch = 0
    seen = [values(bright) for _ in range(3)]
    assert bright.epoch == plain.epoch == 3
    again = stream()[1]
    again.epoch = 1
    assert [values(again) for _ in range(2)] == seen[1:]
    # In `fit()`, which makes more iterators than it uses.
    again.epoch = 1
    assert fit_and_watch(again, epochs=2) == seen[1:]
    assert again.epoch == 3


def test_tfds_grey_and_class_names(mock_tfds):
    plain = data.load_test("tfds:mnist", batch_size=23)
    assert plain.image_size == (28, 28)
    names = [str(digit) for digit in range(9, -1, -1)]
    turned = data.load_test("mnist", batch_size=23, class_names=names)
    images, labels = next(iter(plain))
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    np.testing.assert_array_equal(9 - labels, next(iter(turned))[1])
    with pytest.raises(ValueError, match=r"Received: \['3', '4', "):
        data.load_test("mnist", class_names=["0", "1", "2"])


def test_tfds_errors(mock_tfds):
    with pytest.raises(ValueError, match="many sizes needs .*image_size=None"):
        data.load("oxford_flowers102")
    with pytest.raises(ValueError, match="class label as its .*'coco"):
        data.load("tfds:coco")


@pytest.mark.parametrize("source", ["phtos", "phtos/", "./phtos", "tfds:phtos"])
def test_neither_folder_nor_tfds(source):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError) as caught:
        data.load(source)
    text = str(caught.value)
    assert "\n" not in text and "phtos" in text
    assert "no such folder, and no such name in TensorFlow Datasets" in text


def test_paths_that_are_no_folder(tmp_path):
    file = write(tmp_path / "a.png", 1)
    for source in (file, str(file), tmp_path / "none"):
        with pytest.raises(ValueError, match="must be a folder that exists"):
            data.load(source)


# The embedded sample


def test_sample(tmp_path):
    where = data.unpack_sample(tmp_path / "deep" / "sample")
    assert where == tmp_path / "deep" / "sample"
    files = sorted(where.glob("*/*/*.jpg"))
    assert len(files) == 1100
    assert os.listdir(where.parent) == ["sample"]
    before = [file.stat().st_mtime_ns for file in files]
    assert data.unpack_sample(where) == where
    assert [file.stat().st_mtime_ns for file in files] == before
    train, held = data.load(where)
    assert (train.num_pictures, held.num_pictures) == (900, 200)
    assert train.image_size == (32, 32) and len(train.class_names) == 10
    assert np.bincount(held.labels[held.rows]).tolist() == [20] * 10
    files[5].unlink()
    with pytest.raises(ValueError, match="new, empty or an unpacked sample"):
        data.unpack_sample(where)


def test_sample_is_whole_or_absent(tmp_path, monkeypatch):
    def stop(self, path):
        (Path(path) / "train").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("zipfile.ZipFile.extractall", stop)
    with pytest.raises(KeyboardInterrupt):
        data.unpack_sample(tmp_path / "sample")
    assert list(tmp_path.iterdir()) == []


def test_sample_is_the_documented_file():
    digest = hashlib.sha256(loading.SAMPLE.read_bytes()).hexdigest()
    assert digest in loading.SAMPLE.with_name("README.md").read_text()


# Without TensorFlow


@pytest.mark.thorough
def test_jax_without_tensorflow(tmp_path):
    pytest.importorskip("jax")
    make_tree(tmp_path)
    script = """
        import sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0].startswith("tensorflow"):
                    raise ImportError(f"{name} is blocked")

        sys.meta_path.insert(0, Refuse())
        import keras
        from kanets import data

        train, held = data.load(sys.argv[1], batch_size=4, validation=0.25)
        train = data.augmented(train, keras.layers.RandomFlip(seed=1))
        begun = []
        model = keras.Sequential(
            [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
        )
        model.compile(
            "sgd",
            keras.losses.SparseCategoricalCrossentropy(True),
            metrics=["accuracy"],
        )
        note = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: begun.append(train.epoch)
        )
        model.fit(train, validation_data=held, epochs=3, verbose=0,
                  shuffle=False, callbacks=[note])
        assert begun == [0, 1, 2], begun
        model.fit(train, steps_per_epoch=2, verbose=0)
        try:
            data.load("cifar10")
        except ValueError as error:
            assert "cannot be imported" in str(error), error
        else:
            raise AssertionError("no error")
        assert not any(name.startswith("tensorflow") for name in sys.modules)
        print("backend", keras.backend.backend())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == "backend jax"


def test_the_parts_of_a_dict_are_called_as_folders():
    test = data.load_test({"valid": (X, Y)})
    assert test.num_pictures == len(X)
