"""What exports have in common, and what every SavedModel has.

A folder appears complete or not at all, and is never overwritten. What takes
pictures reads them by the rules of `kanets.data.pictures`.
"""

import contextlib
import inspect
import pathlib

import keras

from kanets import files
from kanets.checks import positive_integer
from kanets.data.framing import picture_size
from kanets.data.graph_pictures import decode_pictures, fit_pictures
from kanets.export.runtimes.finding import versions
from kanets.export.warmup import write_warmup
from kanets.quantization.preparing import check_trained, is_prepared
from kanets.zoo.saving import check_finite

positive_int = positive_integer  # its name here in earlier versions


def check_backend():
    """Raises a RuntimeError where Keras does not run on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Exporting needs the TensorFlow backend of Keras. Save the model "
            "with `model.save('model.keras')`, then load and export it under "
            "KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )


def check_model(model):
    """Refuses a model that cannot be exported.

    Raises:
        RuntimeError: as `check_backend`.
        ValueError: it is no Keras model, is not built, was prepared for 8 bits
            and has learned no ranges, or has weights that are not finite.
    """
    check_backend()
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Keras model, as kanets.load_model returns it. "
            f"Received: model={model!r}"
        )
    if not model.built:
        raise ValueError(
            "`model` must be built: call it on a batch first. "
            f"Received: model={model.name!r}, not built"
        )
    if is_prepared(model):
        check_trained(model)
    check_finite(model, model.name)


def new_version(directory, version):
    """The path of the version folder to write; it does not exist.

    Args:
        directory: folder of versions, which need not exist.
        version: positive int, or None for one more than the highest.

    Raises:
        FileExistsError: the version is there already.
        ValueError: `version` is no positive integer.
    """
    directory = pathlib.Path(directory)
    present = numbered(directory)
    if version is None:
        return directory / str(max(present, default=0) + 1)
    version = positive_integer("`version`", version)
    if version in present:
        raise exists(present[version])
    return directory / str(version)


def check_options(kind, function, **options):
    """Returns the options that were given, those not None.

    Args:
        kind: str, what such a model is called.
        function: what they are for; its arguments with defaults are those
            it knows.
        **options: to be checked.

    Raises:
        ValueError: one does not fit this kind of model.
    """
    known = inspect.signature(function).parameters
    given = {key: value for key, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in known or known[name].default is inspect.Parameter.empty:
            raise ValueError(
                f"A {kind} takes no `{name}`. Received: {name}={value!r}"
            )
    return given


def resolve_image_size(model, image_size):
    """Height and width, checked against the model's: its `picture_size`."""
    input_shape = getattr(model, "input_shape", (None, None, None, 3))
    if len(input_shape) != 4 or input_shape[3] != 3:
        raise ValueError(
            "`model` must take pictures (batch, height, width, 3). "
            f"Received: model.input_shape={input_shape}"
        )
    own_size = tuple(input_shape[1:3])
    if image_size is None:
        image_size = own_size
    if isinstance(image_size, list):
        image_size = tuple(image_size)
    received = (
        f"Received: image_size={image_size}, model.input_shape={input_shape}"
    )
    if (
        not isinstance(image_size, tuple)
        or len(image_size) != 2
        or None in image_size
    ):
        raise ValueError(
            "`image_size` must be a height and a width where the model's "
            f"input leaves them open. {received}"
        )
    image_size = tuple(positive_integer("`image_size`", n) for n in image_size)
    for side, own_side in zip(image_size, own_size, strict=True):
        if own_side not in (None, side):
            raise ValueError(
                f"`image_size` must be the model's input size. {received}"
            )
    return picture_size(model, image_size)


def check_class_names_of(body, model, class_names):
    """`check_class_names` of what a `tf.function` of one input returns."""
    classes = body.get_concrete_function().output_shapes[-1]
    return check_class_names(model, class_names, classes)


def check_class_names(model, class_names, num_classes):
    """Returns the class names as a list, one unique name per output."""
    if class_names is None:
        class_names = getattr(model, "class_names", None)
    if class_names is None:
        raise ValueError(
            "`class_names` must be given, or set as `model.class_names`. "
            "Received: class_names=None"
        )
    if isinstance(class_names, str):
        raise ValueError(
            "`class_names` must be a sequence of names. "
            f"Received: class_names={class_names!r}"
        )
    class_names = list(class_names)
    if len(class_names) != num_classes:
        raise ValueError(
            f"`class_names` must name each of the {num_classes} outputs. "
            f"Received: len(class_names)={len(class_names)}"
        )
    for name in class_names:
        if not isinstance(name, str) or len(name.splitlines()) != 1:
            raise ValueError(
                "`class_names` must be strings of one line. "
                f"Received: {name!r} in class_names"
            )
    if len(set(class_names)) != num_classes:
        twice = sorted({n for n in class_names if class_names.count(n) > 1})
        raise ValueError(
            "`class_names` must not repeat a name. "
            f"Received: {', '.join(twice)} more than once"
        )
    return class_names


def add_picture_endpoints(archive, answer, image_size):
    """Adds the two signatures of a bundle that takes pictures.

    `serving_default` takes `image_bytes` (B,), JPEG or PNG files, and
    `serve_images` takes `images` (B, h, w, 3), uint8 of any size.

    Args:
        archive: `keras.export.ExportArchive`.
        answer: function from fitted pixels (B, H, W, 3), float32, to a dict
            of tensors.
        image_size: pair of int, H and W.

    Returns:
        The requests for warm-up, for `write`.
    """
    import tensorflow as tf

    archive.add_endpoint(
        "serving_default",
        lambda image_bytes: answer(decode_pictures(image_bytes, image_size)),
        [tf.TensorSpec((None,), tf.string, "image_bytes")],
    )
    archive.add_endpoint(
        "serve_images",
        lambda images: answer(fit_pictures(images, image_size)),
        [tf.TensorSpec((None, None, None, 3), tf.uint8, "images")],
    )
    return _requests(image_size)


def write(archive, version_folder, class_names, requests, batch_sizes):
    """Writes an export, whole or not at all.

    Args:
        archive: `keras.export.ExportArchive` with its endpoints.
        version_folder: from `new_version`.
        class_names: labels for clients, maybe none.
        requests, batch_sizes: for warm-up, as in `write_warmup`.
    """
    with whole(version_folder) as partial:
        archive.write_out(str(partial), verbose=False)
        extra = partial / "assets.extra"
        extra.mkdir()
        files.write_labels(extra, class_names)
        write_warmup(extra, version_folder.parent.name, requests, batch_sizes)


@contextlib.contextmanager
def whole(folder):
    """Gives a path to write a folder at, which is renamed when complete.

    Nothing is left of one that fails, but the folder it was to lie in; of one
    that is killed, a folder `.tmp-...`: servers read numbers only, and pass
    over that name.

    Args:
        folder: `pathlib.Path`, its name in the end; what it lies in is made.

    Raises:
        FileExistsError: `folder` is there already.
        OSError: the disk is full, or the system refused.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.whole(folder, replace=False) as partial:
            yield partial
    except FileExistsError as error:
        raise exists(folder) from error


def exists(folder):
    """The error for an export to a folder that is there already."""
    return FileExistsError(
        "An export must go to a new version or folder: nothing is overwritten. "
        f"Received: {str(folder)!r}, which exists"
    )


def find_savedmodel(path):
    """Finds the folder of a SavedModel, the one `load_savedmodel` loads.

    Args:
        path: a version folder, or the folder of versions, of which the
            highest is taken.

    Returns:
        `pathlib.Path` of the folder that holds `saved_model.pb`.

    Raises:
        FileNotFoundError: if there is no SavedModel at `path`.
    """
    path = pathlib.Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    found = versions(path) if path.is_dir() else None
    if found:
        return found[max(found)]
    raise FileNotFoundError(
        "`path` must be an exported version or a folder of versions. "
        f"Received: path={str(path)!r}"
    )


def load_signature(path, output):
    """Loads what turns picture files into tensors.

    Args:
        path: as in `find_savedmodel`.
        output: the name of one of its outputs.

    Returns:
        A function from a list of JPEG or PNG files, as bytes, to a dict of
        tensors.

    Raises:
        FileNotFoundError: if there is no SavedModel at `path`.
        ValueError: if the SavedModel does not take `image_bytes`, or has no
            such output.
    """
    import tensorflow as tf

    folder = find_savedmodel(path)
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures.get("serving_default")
    if (
        serve is None
        or "image_bytes" not in serve.structured_input_signature[1]
        or output not in serve.structured_outputs
    ):
        raise ValueError(
            "The SavedModel must have a signature `serving_default` that "
            f"takes `image_bytes` and returns `{output}`. "
            f"Received: path={str(folder)!r}"
        )

    def call(files, loaded=loaded):  # `loaded` keeps the weights alive
        return serve(image_bytes=tf.constant(list(files), tf.string))

    return call


def _requests(image_size):
    """A request of one grey picture for each signature.

    The picture is twice the model's size, so that resizing is warmed up as
    well.
    """
    import tensorflow as tf

    height, width = image_size
    shape = (2 * height, 2 * width, 3)
    encoded = tf.io.encode_jpeg(tf.fill(shape, tf.constant(127, tf.uint8)))
    image_bytes = tf.make_tensor_proto([encoded.numpy()])
    # A single value stands for a whole tensor that repeats it.
    images = tf.make_tensor_proto(127, tf.uint8, (1, *shape))
    return [
        ("serving_default", {"image_bytes": image_bytes}),
        ("serve_images", {"images": images}),
    ]


def numbered(directory):
    """Maps the numbers TensorFlow Serving sees in `directory` to paths."""
    return {
        int(path.name): path
        for path in directory.glob("*")
        if path.name.isascii() and path.name.isdigit()
    }
