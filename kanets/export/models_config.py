"""Files that a TensorFlow Serving is configured by."""

import pathlib

from kanets import checks, files
from kanets.export.bundle import find_savedmodel

CONFIG_FILE, BATCHING_FILE = "models.config", "batching_parameters.txt"
DELAY = 2_000  # microseconds that a request waits for others
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


def write_batching_parameters(directory, batch_sizes):
    """Writes `batching_parameters.txt`, by which a server merges requests.

    For its flags `--enable_batching --batching_parameters_file`: requests that
    come within two milliseconds are answered together, as many pictures as
    the greatest size, and filled up to the next size that is allowed. What
    `export_savedmodel` writes with the same sizes is warm for each of them.

    Args:
        directory: folder to write into, such as `savedmodels`.
        batch_sizes: list of positive int, those allowed, increasing.

    Returns:
        `pathlib.Path` of the file.

    Raises:
        ValueError: the sizes are none, or do not increase.

    Example:

    >>> write_batching_parameters("savedmodels", [1, 8, 32])
    PosixPath('savedmodels/batching_parameters.txt')
    """
    sizes = increasing_sizes(batch_sizes)
    lines = [
        f"max_batch_size {{ value: {sizes[-1]} }}",
        f"batch_timeout_micros {{ value: {DELAY} }}",
        *(f"allowed_batch_sizes: {size}" for size in sizes),
    ]
    path = pathlib.Path(directory) / BATCHING_FILE
    files.write_text(path, "\n".join(lines) + "\n")
    return path


def increasing_sizes(batch_sizes):
    """Returns sizes of batches as a list, each greater than the one before.

    Raises:
        ValueError: they are none, or do not increase.
    """
    sizes = []
    if isinstance(batch_sizes, (list, tuple)):
        check = checks.positive_integer
        sizes = [check("batch_sizes", size) for size in batch_sizes]
    if not sizes or sizes != sorted(set(sizes)):
        raise ValueError(
            "`batch_sizes` must be a list of integers that increase. "
            f"Received: batch_sizes={batch_sizes!r}"
        )
    return sizes


def _has_versions(path):
    try:
        return find_savedmodel(path) != path
    except FileNotFoundError:
        return False


def _escape(text):
    """Writes a str as protobuf's text format has it between quotes."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(c if c >= " " else f"\\{ord(c):03o}" for c in text)
