"""The zoo: models by name, and model folders on disk.

A model folder is what Keras writes unzipped and what the Hugging Face Hub
calls a Keras repository (`config.json`, `metadata.json`, `model.weights.h5`),
with `labels.txt`, a class per line, beside them. A zoo entry is a model folder
under `models/` with `entry.json` (figures, licence, checksum) and a card.
"""

import dataclasses
import difflib
import fnmatch
import hashlib
import json
import shutil
import uuid
from pathlib import Path

import keras

_PACKAGED = Path(__file__).parent / "models"
_CHECKOUT = Path(__file__).parent.parent / "models"
_HEAD = "predictions"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One pretrained model of the zoo; `entry.json` holds the same fields.

    Attributes:
        name: what `create_model` takes.
        task: "classification".
        data: the data set it was trained on.
        metric: what `value` is, and on which part of the data.
        value: the measured figure, out of `kanets evaluate`.
        parameters: number of parameters, with those of batch norm.
        input_shape: (H, W, C) it was trained at.
        recipe: the file in `training/` that made it.
        licence: of weights and data.
        sha256: of `model.weights.h5`.
    """

    name: str
    task: str
    data: str
    metric: str
    value: float
    parameters: int
    input_shape: tuple
    recipe: str
    licence: str
    sha256: str


def models_directory():
    """Where the entries are: in the wheel, or at the root of a checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def list_models(pattern="*"):
    """Entries of the zoo whose name matches a shell pattern, by name.

    Args:
        pattern: such as "kanet_qkv*".

    Returns:
        A list of `Entry`.
    """
    entries = []
    for path in sorted(models_directory().glob("*/entry.json")):
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["input_shape"] = tuple(fields["input_shape"])
        entries.append(Entry(**fields))
    return [e for e in entries if fnmatch.fnmatch(e.name, pattern)]


def create_model(name, num_classes=None, input_shape=None, pretrained=True):
    """A model of the zoo, ready to predict or to be fine-tuned.

    Args:
        name: an entry's name, or what `load_model` reads.
        num_classes: a new head of so many classes, with fresh weights;
            None keeps the trained head and its class names.
        input_shape: (H, W, C) if another than it was trained at; sizes may
            be None.
        pretrained: False gives the same architecture with fresh weights.

    Returns:
        A `keras.Model` from pixels 0..255 to probabilities, not compiled,
        with its labels as `class_names` where the head is the trained one.

    Raises:
        ValueError: an unknown name (the nearest are suggested), weights that
            do not match their checksum, `num_classes` below 1.

    Example:

        model = create_model("kanet_qkv_cifar10", num_classes=2)
    """
    if num_classes is not None and num_classes < 1:
        raise ValueError(
            "num_classes must be a positive integer. "
            f"Received: num_classes={num_classes}"
        )
    model = load_model(name)
    class_names = getattr(model, "class_names", None)
    if input_shape is not None and tuple(input_shape) != model.input_shape[1:]:
        model = _resized(model, tuple(input_shape))
    if not pretrained:
        model = keras.models.clone_model(model)
    if num_classes is not None:
        model = _with_head(model, num_classes)
    elif class_names is not None:
        model.class_names = tuple(class_names)
    return model


def load_model(source):
    """The model of a model folder, a run, a `.keras` file or a zoo name.

    Args:
        source: a path, or the name of an entry. Of a run's folder the best
            model is taken, of a GAN's run the generator.

    Returns:
        A `keras.Model`, not compiled; labels that were saved with it are its
        `class_names`, a tuple of strings.

    Raises:
        ValueError: nothing there to load; files that are damaged or do not
            match their checksum; an unknown name.
    """
    path = Path(source)
    if not path.exists():
        path = _entry_folder(str(source))
    for part in ("best", "generator"):
        if (path / part / "config.json").exists():
            path = path / part
    if path.is_dir() and not (path / "config.json").exists():
        raise ValueError(
            "A model folder holds config.json, metadata.json and "
            "model.weights.h5, or best/ or generator/ with these. Received: "
            f"{str(source)!r} with {sorted(p.name for p in path.iterdir())}"
        )
    _check_sha256(path)
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged file breaks
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"Keras cannot load this model: {first} Received: {str(path)!r}"
        ) from error
    labels = path / "labels.txt"
    if labels.exists():
        lines = labels.read_text(encoding="utf-8").split("\n")
        model.class_names = tuple(lines[:-1])
    return model


def save_model(model, directory, class_names=None):
    """Writes a model folder, whole or not at all, without optimizer state.

    Args:
        model: a functional `keras.Model`.
        directory: the folder; an earlier one is replaced.
        class_names: labels, in the order of the outputs; default those of
            the model.

    Returns:
        The folder's `Path`.

    Raises:
        ValueError: a label with a line break in it.
    """
    directory = Path(directory)
    if class_names is None:
        class_names = getattr(model, "class_names", None) or ()
    for label in class_names:
        if "\n" in label or "\r" in label:
            raise ValueError(
                f"A class name must be one line. Received: {label!r}"
            )
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    old = fresh.with_name(f"{fresh.name}.old")
    fresh.mkdir()
    try:
        # The same graph, uncompiled: no optimizer state in the file.
        bare = keras.Model(model.input, model.output, name=model.name)
        keras.saving.save_model(bare, fresh, zipped=False)
        if (fresh / "assets").is_dir() and not any(
            (fresh / "assets").iterdir()
        ):
            (fresh / "assets").rmdir()
        if class_names:
            (fresh / "labels.txt").write_text(
                "".join(f"{label}\n" for label in class_names),
                encoding="utf-8",
            )
        if directory.exists():
            directory.rename(old)
        try:
            fresh.rename(directory)
        except BaseException:
            if old.exists():
                old.rename(directory)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return directory


def sha256(path):
    """Hex digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry_folder(name):
    folder = models_directory() / name
    if (folder / "entry.json").exists():
        return folder
    names = [entry.name for entry in list_models()]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"Nearest: {', '.join(near)}." if near else f"Entries: {names}."
    raise ValueError(
        f"No such model folder, file or zoo entry. {hint} Received: {name!r}"
    )


def _check_sha256(path):
    if not (path / "entry.json").exists():
        return
    entry = json.loads((path / "entry.json").read_text(encoding="utf-8"))
    weights = path / "model.weights.h5"
    if not weights.exists():
        raise ValueError(f"The weights are missing. Received: {str(weights)!r}")
    actual = sha256(weights)
    if actual != entry["sha256"]:
        raise ValueError(
            "The weights do not match their checksum: damaged or altered. "
            f"Received: {str(weights)!r} with sha256 {actual}, "
            f"expected {entry['sha256']}"
        )


def _resized(model, input_shape):
    """The same graph and weights at another picture size."""
    config = model.get_config()
    for layer in config["layers"]:
        layer.pop("build_config", None)
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_shape"] = (None, *input_shape)
    resized = model.__class__.from_config(config)
    resized.set_weights(model.get_weights())
    return resized


def _with_head(model, num_classes):
    """The same body under a new last layer."""
    head = model.get_layer(_HEAD)
    config = {**head.get_config(), "units": num_classes}
    new_head = head.__class__.from_config(config)
    return keras.Model(model.input, new_head(head.input), name=model.name)
