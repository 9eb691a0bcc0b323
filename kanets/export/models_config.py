"""The list of models for a TensorFlow Serving that serves several."""

import pathlib

from kanets import files
from kanets.export.bundle import find_savedmodel

CONFIG_FILE = "models.config"
_MODEL = """\
  config {{
    name: "{name}"
    base_path: "{base_path}"
    model_platform: "tensorflow"
  }}
"""


def write_models_config(directory, base_path="/models"):
    """Writes `models.config`, for the server's `--model_config_file`.

    A text `tensorflow.serving.ModelServerConfig` with one model, sorted by
    name, for each folder of versions in `directory`. The server takes the
    highest version of each. A server that polls the file
    (`--model_config_file_poll_wait_seconds`) never reads half of one.

    Args:
        directory: folder of folders of versions, such as `savedmodels`.
        base_path: str, where the server sees `directory`: an absolute path
            or a URI, such as `gs://bucket/models`.

    Returns:
        `pathlib.Path` of the file, `directory/models.config`.

    Raises:
        ValueError: if `directory` holds no folder of versions, or the server
            would refuse `base_path`.

    Example:

    >>> write_models_config("savedmodels")
    PosixPath('savedmodels/models.config')
    """
    directory, base_path = pathlib.Path(directory), str(base_path)
    if not (base_path.startswith("/") or "://" in base_path):
        raise ValueError(
            "`base_path` must be an absolute path or a URI. "
            f"Received: base_path={base_path!r}"
        )
    names = sorted(
        path.name for path in directory.glob("*") if _has_versions(path)
    )
    if not names:
        raise ValueError(
            "`directory` must hold folders of exported versions. "
            f"Received: directory={str(directory)!r}"
        )
    models = "".join(
        _MODEL.format(
            name=_escape(name),
            base_path=_escape(f"{base_path.rstrip('/')}/{name}"),
        )
        for name in names
    )
    config = directory / CONFIG_FILE
    files.write_text(config, f"model_config_list {{\n{models}}}\n")
    return config


def _has_versions(path):
    try:
        return find_savedmodel(path) != path
    except FileNotFoundError:
        return False


def _escape(text):
    """Writes a str as protobuf's text format has it between quotes."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(c if c >= " " else f"\\{ord(c):03o}" for c in text)
