"""What every SavedModel for TensorFlow Serving has: a version, warm-up.

A version folder appears complete or not at all, and is never overwritten.
"""

import operator
import os
import pathlib
import shutil
import uuid

import keras

from kanets.export.warmup import write_warmup


def check_model(model):
    """Refuses a model that cannot be exported.

    Raises:
        RuntimeError: Keras does not run on TensorFlow.
        ValueError: the model is not built.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Exporting needs the TensorFlow backend of Keras. Save the model "
            "with `model.save('model.keras')`, then load and export it under "
            "KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    if not model.built:
        raise ValueError(
            "`model` must be built: call it on a batch first. "
            f"Received: model={model.name!r}, not built"
        )


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
    versions = _versions(directory)
    if version is None:
        return directory / str(max(versions, default=0) + 1)
    version = positive_int("version", version)
    if version in versions:
        raise _exists(versions[version])
    return directory / str(version)


def write(archive, version_folder, class_names, requests):
    """Writes an export, whole or not at all.

    Args:
        archive: `keras.export.ExportArchive` with its endpoints.
        version_folder: from `new_version`.
        class_names: labels for clients, maybe none.
        requests: for warm-up, as in `write_warmup`.
    """
    directory = version_folder.parent
    directory.mkdir(parents=True, exist_ok=True)
    # Servers read numbers only, so they pass over this name.
    partial = directory / f".tmp-{version_folder.name}-{uuid.uuid4().hex}"
    try:
        archive.write_out(str(partial), verbose=False)
        extra = partial / "assets.extra"
        extra.mkdir()
        labels = "".join(f"{name}\n" for name in class_names)
        if labels:
            (extra / "labels.txt").write_text(labels, encoding="utf-8")
        write_warmup(extra, directory.name, requests)
        _publish(partial, version_folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
    candidates = [path]
    if path.is_dir():
        versions = _versions(path)
        candidates += [versions[number] for number in sorted(versions)[::-1]]
    for folder in candidates:
        if (folder / "saved_model.pb").is_file():
            return folder
    raise FileNotFoundError(
        "`path` must be an exported version or a folder of versions. "
        f"Received: path={str(path)!r}"
    )


def positive_int(name, value):
    """Returns `value` as an int of at least 1; a bool is not one."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return number


def _versions(directory):
    """Maps the numbers TensorFlow Serving sees in `directory` to paths."""
    return {
        int(path.name): path
        for path in directory.glob("*")
        if path.name.isascii() and path.name.isdigit()
    }


def _exists(path):
    return FileExistsError(
        "`version` must not exist yet: exports are never overwritten. "
        f"Received: version={int(path.name)}, which is {str(path)!r}"
    )


def _publish(partial, version_folder):
    """Gives a complete export its number, in one step."""
    try:
        os.rename(partial, version_folder)
    except OSError as error:
        # A folder that is not empty cannot be replaced: another export won.
        if version_folder.exists():
            raise _exists(version_folder) from error
        raise
