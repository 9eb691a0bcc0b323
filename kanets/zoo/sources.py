"""Where models come from: names, paths, the Hugging Face Hub, URLs, a mirror.

Whatever is fetched is kept: what comes from the Hub in its own cache, all else
in `~/.keras/kanets` (`KERAS_HOME` moves it), under its sha256.
"""

import dataclasses
import difflib
import json
import os
import re
import tempfile
import urllib.parse
import zipfile
from pathlib import Path

import keras

from kanets.checks import one_line
from kanets.files import LABELS, sha256
from kanets.zoo import entries
from kanets.zoo.hub import snapshot

WEIGHTS = "model.weights.h5"
FILES = ("config.json", "metadata.json", WEIGHTS, LABELS, "entry.json")
TENSORS = "model.safetensors"  # timm's
MIRROR = "KANETS_MIRROR"


@dataclasses.dataclass(frozen=True)
class Located:
    """A model on this machine.

    Attributes:
        path: a model folder, or a file for Keras to read.
        entry: its `Entry`, or None.
        part: "discriminator" if `path` is this folder of its entry's.
    """

    path: Path
    entry: entries.Entry | None = None
    part: str = ""

    @property
    def is_timm(self):
        """Whether it is a `.safetensors` file, with timm's names."""
        return self.path.suffix == ".safetensors"


def locate(source, foreign=False):
    """The model that `load_model` is asked for, fetched if it is far.

    The name of an entry means the entry, whatever lies in this directory: a
    folder of the same name is "./name". With `foreign`, timm's weights are
    located, too, as their `.safetensors` file.
    """
    text = str(source)
    if text.startswith("hf://"):
        path = snapshot(text, (*FILES, TENSORS) if foreign else FILES)
    elif _is_url(text):
        path = _from_url(text)
    elif is_entry(text) or not Path(text).exists():
        path = _from_zoo(text)
    else:
        path = Path(text)
    for part in ("best", "generator"):
        if (path / part / "config.json").exists():
            path = path / part
    if path.is_file():
        return Located(path)
    ours = (path / WEIGHTS).exists()
    if foreign and not ours and (path / TENSORS).exists():
        return Located(path / TENSORS)
    if not ours and _is_timm(path):
        raise ValueError(
            "timm's repositories hold model.safetensors, for "
            "kanets.create_model(...). "
            f"Received: {text!r} with {sorted(p.name for p in path.iterdir())}"
        )
    if not (path / "config.json").exists():
        raise ValueError(
            "A model folder holds config.json, metadata.json and "
            "model.weights.h5, or best/ or generator/ with these. Received: "
            f"{text!r} with {sorted(p.name for p in path.iterdir())}"
        )
    if (path / "entry.json").exists():
        return Located(path, entries.Entry.from_json(path / "entry.json"))
    if (path.parent / "entry.json").exists():
        entry = entries.Entry.from_json(path.parent / "entry.json")
        if f"{path.name}/{WEIGHTS}" in entry.files:
            return Located(path, entry, path.name)
    return Located(path)


def is_entry(name):
    """Whether a text is the name of an entry, or of a part of one."""
    if name.startswith((".", "/", "~")):
        return False
    return (entries.models_directory() / name / "config.json").exists()


def checked_weights(located):
    """The weights file of a model folder, from the mirror if there is one.

    The other files of the folder that its entry knows are checked, too.

    Raises:
        ValueError: a file is missing, or does not match its entry's checksum.
    """
    weights, entry = located.path / WEIGHTS, located.entry
    digest = None
    if entry is not None:
        name = f"{located.part}/{WEIGHTS}" if located.part else WEIGHTS
        digest = entry.files.get(name)
        if digest is None:
            raise ValueError(
                "The files of an entry must hold the sha256 of its weights. "
                f"Received: {entry.name!r} with files={entry.files}, "
                f"without {name!r}"
            )
        check_others(located)
        folder = located.path.parent if located.part else located.path
        mirror = os.environ.get(MIRROR)
        installed = entries.models_directory().resolve()
        if mirror and folder.parent.resolve() == installed:
            if _is_url(mirror):
                base = mirror.rstrip("/")
                return _download(f"{base}/{folder.name}/{name}", digest)
            weights = Path(mirror) / folder.name / name
    _check(weights, digest)
    return weights


def check_others(located):
    """Checks the files of a model folder that its entry knows, but weights.

    Raises:
        ValueError: as `checked_weights`.
    """
    folder = located.path.parent if located.part else located.path
    for name, expected in located.entry.files.items():
        path = folder / name
        if path.parent == located.path and path.name != WEIGHTS:
            _check(path, expected)


def _check(path, digest):
    what = "weights" if path.name == WEIGHTS else "contents"
    if not path.exists():
        raise ValueError(f"The {what} are missing. Received: {str(path)!r}")
    if digest is not None and (actual := sha256(path)) != digest:
        raise ValueError(
            f"The {what} do not match their checksum: cut short, damaged or "
            f"altered. Received: {str(path)!r} with sha256 {actual}, "
            f"expected {digest}"
        )


def _is_url(text):
    return text.startswith(("http://", "https://"))


def _from_zoo(name):
    directory = entries.models_directory()
    if (directory / name / "config.json").exists():
        return directory / name
    if name in entries.REPLACED:
        raise ValueError(
            f"This entry has given way to {entries.REPLACED[name]!r}, which "
            f"is better. Received: {name!r}"
        )
    if name in {architecture.name for architecture in entries.ARCHITECTURES}:
        raise ValueError(
            "This architecture has no pretrained weights: "
            "kanets.create_model(name, pretrained=False) builds it, and "
            "weights=... fills it. "
            f"Received: {name!r}"
        )
    folders = [*directory.glob("*/config.json")]
    folders += directory.glob("*/*/config.json")
    names = [p.parent.relative_to(directory).as_posix() for p in folders]
    names += [architecture.name for architecture in entries.ARCHITECTURES]
    names.sort()
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"Nearest: {', '.join(near)}." if near else f"Entries: {names}."
    raise ValueError(
        f"No such model folder, file or zoo entry. {hint} Received: {name!r}"
    )


def _is_timm(folder):
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "pretrained_cfg" in config


def _from_url(address):
    """The `.keras` file of a URL, or the folder in its `.zip`."""
    url, fragment = urllib.parse.urldefrag(address)
    match = re.fullmatch("sha256=([0-9a-fA-F]{64})", fragment)
    suffix = Path(urllib.parse.urlsplit(url).path).suffix
    if match is None or suffix not in (".keras", ".zip"):
        raise ValueError(
            "A URL must name a .keras file, or a .zip of a model folder, and "
            "its hash: https://host/name.keras#sha256=<64 hex digits>. "
            f"Received: {address!r}"
        )
    digest = match.group(1).lower()
    file = _download(url, digest)
    if suffix == ".keras":
        return file
    folder = file.with_name(digest)
    try:
        _unpack(file, folder)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"This is no zip file ({error}). Received: {address!r}"
        ) from error
    inside = [
        path
        for path in folder.iterdir()  # but what macOS adds
        if path.name != "__MACOSX" and path.name[0] != "."
    ]
    only = len(inside) == 1 and inside[0].is_dir()
    return inside[0] if only else folder


def _unpack(file, folder):
    """Unpacks a zip, again, as what lies there may have been altered.

    Each file is replaced whole, for whoever reads it at the moment.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as part:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(part)
        for path in sorted(Path(part).rglob("*")):
            target = folder / path.relative_to(part)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)


def _download(url, digest):
    """A file of a URL, out of the cache once it is there."""
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    basename = Path(urllib.parse.urlsplit(url).path).name
    file = home / "kanets" / f"{digest[:16]}-{basename}"
    if file.exists() and sha256(file) == digest:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        part = Path(folder) / file.name
        try:
            keras.utils.get_file(
                part.name, url, cache_subdir=str(part.parent.absolute())
            )
        except Exception as error:  # of the network, the server or the disk
            raise ValueError(
                f"The download failed. Received: {url!r} ({one_line(error)})"
            ) from error
        if (actual := sha256(part)) != digest:
            raise ValueError(
                f"The download failed. Received: {url!r} (sha256 {actual}, "
                f"expected {digest})"
            )
        os.replace(part, file)
    return file
