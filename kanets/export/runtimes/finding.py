"""Which format an artifact has, and which file or folder its runtime reads."""

import pathlib

SUFFIXES = {".tflite": "litert", ".onnx": "onnx", ".xml": "openvino"}
_ACCEPTED = (
    "`artifact` must be a SavedModel (a version folder or a folder of "
    "versions), a folder with model.tflite, model.onnx, or model.xml and "
    "model.bin in it, or such a file."
)


def find(artifact):
    """The format of an artifact and the path its runtime reads.

    Args:
        artifact: a SavedModel's version folder; a folder of versions, of
            which the highest is taken; a folder with `model.tflite`,
            `model.onnx`, or `model.xml` and `model.bin` in it; a file with
            one of these suffixes (`.xml` with its `.bin` beside it).

    Returns:
        ("savedmodel", the version folder), or ("litert", "onnx" or
        "openvino", the file); the path is a `pathlib.Path`.

    Raises:
        FileNotFoundError: there is no such path, nothing of these in the
            folder, or no `.bin` beside the `.xml`.
        ValueError: the file is of another kind, or the folder holds several.
    """
    path = pathlib.Path(artifact)
    received = f"Received: artifact={str(path)!r}"
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "savedmodel", path
        files = [path / f"model{suffix}" for suffix in SUFFIXES]
        files = [file for file in files if file.is_file()]
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            raise ValueError(f"{_ACCEPTED} {received}, which holds {names}")
        if not files:
            return "savedmodel", _highest_version(path, received)
        path = files[0]
    elif not path.exists():
        raise FileNotFoundError(f"{_ACCEPTED} {received}, which is not there")
    elif path.suffix not in SUFFIXES:
        raise ValueError(f"{_ACCEPTED} {received}")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise FileNotFoundError(
            f"An .xml file needs its .bin file beside it. {received}"
        )
    return SUFFIXES[path.suffix], path


def versions(directory):
    """The SavedModels of a folder of versions, by TensorFlow Serving's rule.

    Args:
        directory: a folder.

    Returns:
        A dict from numbers to the `pathlib.Path` of each.
    """
    return {
        int(path.name): path
        for path in pathlib.Path(directory).iterdir()
        if path.name.isascii()
        and path.name.isdigit()
        and (path / "saved_model.pb").is_file()
    }


def _highest_version(directory, received):
    found = versions(directory)
    if not found:
        raise FileNotFoundError(f"{_ACCEPTED} {received}, which holds none")
    return found[max(found)]
