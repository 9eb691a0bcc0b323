"""A TensorFlow Datasets name -> batched `tf.data.Dataset`s.

TensorFlow and TensorFlow Datasets are imported by the functions, never by the
module: `kanets.data` must load folders and arrays without them.
"""

from kanets.data.batches import MEMORY_BUDGET
from kanets.data.graph_pictures import fit_pictures
from kanets.data.streams import each_pass

VALIDATION_SPLITS = ("validation", "test")
TEST_SPLITS = ("test", "validation")
SHUFFLE_BUFFER = 10_000


def load(name, image_size, batch_size, validation, seed, class_names):
    """A training and a validation set, or None; see `kanets.data.load`."""
    builder = checked_builder(name)
    held = choose_split(builder, VALIDATION_SPLITS)
    train = "train"
    if held is None and validation:
        percent = min(max(round(100 * (1 - validation)), 1), 99)
        train, held = f"train[:{percent}%]", f"train[{percent}%:]"
    shared = dict(
        image_size=image_size, batch_size=batch_size, class_names=class_names
    )
    train = load_split(builder, name, train, seed=seed, **shared)
    if held is None:
        return train, None
    return train, load_split(builder, name, held, seed=None, **shared)


def load_test(name, image_size, batch_size, split, class_names):
    """A set in a fixed order; see `kanets.data.load_test`."""
    builder = checked_builder(name)
    if split is None:
        split = choose_split(builder, TEST_SPLITS)
    if split is None:
        raise ValueError(
            "A TFDS data set without a test or validation split needs "
            f"`split`. Received: split=None, source={name!r}"
        )
    return load_split(
        builder,
        name,
        split,
        image_size=image_size,
        batch_size=batch_size,
        class_names=class_names,
        seed=None,
    )


def find_builder(name):
    """Returns the builder of a TFDS name, downloaded and prepared.

    Args:
        name: str, for example `"cifar10"` or `"oxford_iiit_pet:4.0.0"`.

    Returns:
        A `tfds.core.DatasetBuilder`.

    Raises:
        LookupError: TFDS has no such data set, or cannot be imported; the
            message is a few words.
        ValueError: the data set is not of labelled pictures.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as e:
        raise LookupError(
            f"tensorflow_datasets cannot be imported ({e})"
        ) from e
    try:
        builder = tfds.builder(name)
    except ValueError as e:  # Not found, or not the form of a name.
        raise LookupError("no such name in TensorFlow Datasets") from e
    keys = builder.info.supervised_keys
    kinds = [type(builder.info.features[key]) for key in keys or ()]
    if len(kinds) != 2 or not (
        issubclass(kinds[0], tfds.features.Image)
        and issubclass(kinds[1], tfds.features.ClassLabel)
    ):
        raise ValueError(
            "A TFDS data set must have a picture and a class label as its "
            f"supervised keys. Received: source={name!r} with "
            f"supervised_keys={keys}"
        )
    builder.download_and_prepare()
    return builder


def class_names_of(builder):
    """Returns the names of the classes of a builder, in label order."""
    return list(builder.info.features[builder.info.supervised_keys[1]].names)


def choose_split(builder, names):
    """Returns the first of `names` that the data set has, or None.

    A builder that does not list its splits is taken to have `test`.
    """
    known = builder.info.splits or {"test"}
    return next((name for name in names if name in known), None)


def load_split(
    builder, name, split, *, image_size, batch_size, class_names, seed
):
    """Reads one split as float32 pictures in 0..255 and int32 labels.

    Args:
        builder: what `find_builder` returns.
        name: str, the TFDS name.
        split: str, a TFDS split such as `"train[:90%]"`.
        image_size: `(h, w)` or None for data sets of one size.
        batch_size: int.
        class_names: list of str, the order of the labels; None for the data
            set's own.
        seed: int, to shuffle with it anew every epoch; None for no shuffle.

    Returns:
        `tf.data.Dataset` with the attributes `class_names`, `image_size`,
        `num_pictures`, `skipped` (empty) and `is_test`; shuffled, also with
        `seed` and, as `kanets.data.streams.each_pass` has it, `epoch`.

    Raises:
        ValueError: `image_size` is missing, `class_names` lacks a class, or
            the pictures are not 8-bit with 1 or 3 channels.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    dataset = tfds.load(name, split=split, as_supervised=True)
    own = class_names_of(builder)
    names = own if class_names is None else list(class_names)
    table = tf.constant(_label_table(own, names, name), tf.int32)
    shape, size = dataset.element_spec[0].shape, image_size
    if dataset.element_spec[0].dtype != tf.uint8 or shape[-1] not in (1, 3):
        raise ValueError(
            "TFDS pictures must be uint8 with 1 or 3 channels. Received: "
            f"{dataset.element_spec[0]}, source={name!r}"
        )
    if size is None:
        if None in shape[:2]:
            raise ValueError(
                "A TFDS data set of pictures of many sizes needs "
                f"`image_size`. Received: image_size=None, source={name!r}"
            )
        size = tuple(shape[:2])

    def fit(image, label):
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        fitted = fit_pictures(image[None], size)[0]
        return tf.cast(fitted, tf.uint8), tf.gather(table, label)

    def cast(images, labels):
        return tf.cast(images, tf.float32), labels

    def in_batches(pictures):
        return pictures.batch(batch_size).map(cast).prefetch(auto)

    def shuffled(key):
        buffer = min(count, SHUFFLE_BUFFER)
        return in_batches(
            pictures.shuffle(buffer, key[0], reshuffle_each_iteration=False)
        )

    auto = tf.data.AUTOTUNE
    count = _count(builder, dataset, split)
    pictures = dataset.map(fit, num_parallel_calls=auto)
    if count * size[0] * size[1] * 3 <= MEMORY_BUDGET:
        pictures = pictures.cache()
    dataset = in_batches(pictures)
    if seed is not None:
        dataset = each_pass(shuffled, seed, dataset.cardinality())
        dataset.seed = seed
    dataset.class_names, dataset.image_size = names, size
    dataset.num_pictures, dataset.skipped = count, []
    dataset.is_test = split == "test"
    return dataset


def _label_table(own, names, source):
    missing = [name for name in own if name not in names]
    if missing:
        raise ValueError(
            f"Every class of {source!r} must be one of class_names={names}. "
            f"Received: {missing} besides"
        )
    return [names.index(name) for name in own]


def _count(builder, dataset, split):
    """Returns the number of pictures, counting them only if it must."""
    try:
        return int(builder.info.splits[split].num_examples)
    except (KeyError, ValueError):
        known = int(dataset.cardinality())
        return known if known >= 0 else int(dataset.reduce(0, _plus_one))


def _plus_one(count, _):
    return count + 1


def checked_builder(name):
    """`find_builder`, with the one error of a source that is none."""
    try:
        return find_builder(name)
    except LookupError as e:
        raise ValueError(
            "`source` must be a folder that exists or a TFDS name. Received: "
            f"source={name!r}: no such folder, and {e}"
        ) from None
