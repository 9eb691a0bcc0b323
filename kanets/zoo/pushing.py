"""Model folders to the Hugging Face Hub, where they are Keras repositories."""

import dataclasses
import re
import shutil
import tempfile
from pathlib import Path

from kanets.checks import one_line
from kanets.files import sha256
from kanets.zoo.hub import hub_library
from kanets.zoo.loading import read
from kanets.zoo.saving import save_model
from kanets.zoo.sources import (
    FILES,
    WEIGHTS,
    checked_weights,
    locate,
)

CARD, LICENCE = "README.md", "LICENSE"
NEEDED = ("config.json", "metadata.json", WEIGHTS)
HEAD = ("license", "library_name", "pipeline_tag", "tags")  # of the card
_BESIDE = (CARD, LICENCE, "*.png")  # a run's, beside the folder of its model


@dataclasses.dataclass(frozen=True)
class Pushed:
    """What was uploaded.

    Attributes:
        url: of the repository's page.
        files: bytes of the files, by their names there.
    """

    url: str
    files: dict

    def __str__(self):
        lines = [f"{size:>13,}  {name}" for name, size in self.files.items()]
        total = f"{sum(self.files.values()):>13,} bytes"
        count = f"{len(self.files)} files"
        return "\n".join([*lines, f"{total} in {count}: {self.url}"])


def push_model(source, address, private=False, message=None):
    """Uploads a model folder to the Hugging Face Hub.

    `load_model(address)` reads it back, and so does Keras where `kanets` is
    imported. Files of an earlier model that this one has not are removed there;
    all others stay.

    Args:
        source: the name of an entry, a model folder with its card, or a run's
            folder: its best model, with card, licence and pictures from the
            run's folder.
        address: "hf://owner/name"; made if it is not there.
        private: whether only you and your organisation see it.
        message: of the commit; default tells the name and the version.

    Returns:
        A `Pushed`, which prints as a list of the files.

    Raises:
        ValueError: an address that is none; a folder without a model, card or
            licence; what `load_model` finds wrong with its files; a public
            repository with `private`; the Hub refused or is not reached.
        ImportError: without `huggingface_hub`.

    Example:

    >>> push_model("runs/mine", "hf://me/insects")  # doctest: +SKIP
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)", address)
    if match is None:
        raise ValueError(
            "A model goes to the Hugging Face Hub at hf://owner/name. "
            f"Received: address={address!r}"
        )
    hub = hub_library(address)
    located = locate(source)
    with tempfile.TemporaryDirectory() as folder:
        if located.entry is not None and located.entry.weights_of:
            located = _made_whole(located, Path(folder, "whole"))
        files = _files(source, located)
        _check_card(files, located, hub)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        for name, path in files.items():
            target = Path(folder, "pushed", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        pushed = Path(folder, "pushed")
        url = _upload(hub, match.group(1), pushed, private, message)
    return Pushed(url, sizes)


def _made_whole(located, folder):
    """A copy of an entry that has another's weights, with its own instead."""
    save_model(read(located), folder)
    for path in located.path.iterdir():
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    entry = located.entry
    known = [*entry.files, WEIGHTS]
    entry = dataclasses.replace(
        entry,
        files={name: sha256(folder / name) for name in known},
        weights_bytes=(folder / WEIGHTS).stat().st_size,
        weights_of="",
    )
    entry.to_json(folder / "entry.json")
    return dataclasses.replace(located, path=folder, entry=entry)


def _files(source, located):
    """Paths by their names in the repository."""
    folder = located.path
    if folder.is_file():
        raise ValueError(
            "The Hub takes model folders: kanets.save_model(model, folder) "
            f"writes one. Received: {str(source)!r}"
        )
    files = {}
    if (folder.parent / "recipe.toml").is_file():  # of a run
        for pattern in _BESIDE:
            files.update((p.name, p) for p in folder.parent.glob(pattern))
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(p.startswith(".") for p in name.parts):
            files[name.as_posix()] = path
    # Checked against its entry, and maybe from a mirror.
    files[WEIGHTS] = checked_weights(located)
    known = located.entry.files if located.entry and not located.part else ()
    for name in known:
        part, _, file = name.rpartition("/")
        if part and file == WEIGHTS:  # of the other network of a GAN
            other = dataclasses.replace(located, path=folder / part, part=part)
            files[name] = checked_weights(other)
    missing = [name for name in (*NEEDED, CARD) if name not in files]
    if missing:
        raise ValueError(
            "The Hub takes a model with its card: config.json, metadata.json "
            f"and {WEIGHTS}, as kanets.save_model writes them, and {CARD}, "
            f"which begins with\n{_head()}\n"
            f"Received: {str(source)!r} without {missing}"
        )
    return dict(sorted(files.items()))


def _check_card(files, located, hub):
    """Raises a ValueError unless card and licence are there."""
    path = files[CARD]
    try:
        head = hub.metadata_load(path)
    except Exception as error:  # of the YAML library
        raise ValueError(
            f"The head of a card must be YAML. Received: {str(path)!r} "
            f"({one_line(error)})"
        ) from error
    missing = [field for field in HEAD if not (head or {}).get(field)]
    if missing:
        raise ValueError(
            f"A card begins with\n{_head()}\n"
            f"Received: {str(path)!r} without {missing}"
        )
    entry = located.entry
    if head["license"] == "other" and LICENCE not in files and entry is None:
        raise ValueError(
            f"A licence that the Hub does not know needs its text in {LICENCE} "
            f"beside the card. Received: {str(path)!r} with license: other"
        )


def _head():
    return (
        "---\nlibrary_name: keras\nlicense: apache-2.0\n"
        "pipeline_tag: image-classification\ntags: [keras, kanets]\n---"
    )


def _upload(hub, name, folder, private, message):
    """The address of the page."""
    from huggingface_hub import errors

    import kanets  # not at the top: it imports the zoo

    if message is None:
        message = f"Upload {name.split('/')[1]} by kanets {kanets.__version__}"
    api = hub.HfApi()
    try:
        # None is what the owner's organisation has as default.
        url = api.create_repo(name, private=private or None, exist_ok=True)
        public = private and not api.repo_info(name).private
        if not public:
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=message,
                delete_patterns=list(FILES),
            )
    except Exception as error:  # of the network, the Hub or a token
        status = getattr(getattr(error, "response", None), "status_code", None)
        unknown = isinstance(error, errors.LocalTokenNotFoundError)
        advice = "`hf auth login` gives this machine a token. "
        raise ValueError(
            "The Hugging Face Hub did not take this model. "
            f"{advice if unknown or status in (401, 403) else ''}"
            f"Received: 'hf://{name}' ({one_line(error)})"
        ) from error
    if public:
        raise ValueError(
            "A repository that is public stays so: make it private on its "
            f"page, or take another name. Received: 'hf://{name}' with "
            f"private={private}"
        )
    return str(url)
