"""Snapshots of repositories of the Hugging Face Hub, by its own client.

The client keeps what it fetched in its cache, asks it alone where
`HF_HUB_OFFLINE` is set or the Hub is not reached, goes on where a download was
cut, and compares sizes. What it does not compare, hashes, is compared here.
"""

import re
from pathlib import Path

from kanets.checks import one_line
from kanets.files import sha256


def snapshot(address, files):
    """The folder of "hf://owner/name" or "hf://owner/name@revision".

    Args:
        address: str.
        files: names of the files that are wanted, where they are there.

    Raises:
        ValueError: no such address, and whatever the Hub, the network or the
            cache have against it, in one line.
        ImportError: `huggingface_hub` is not installed.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@(.+))?", address)
    if match is None:
        raise ValueError(
            "A model on the Hugging Face Hub is hf://owner/name or "
            f"hf://owner/name@revision. Received: {address!r}"
        )
    hub = hub_library(address)
    name, revision = match.groups()
    try:
        folder = Path(
            hub.snapshot_download(
                name, revision=revision, allow_patterns=list(files)
            )
        )
    except Exception as error:  # of the network, the Hub or its cache
        raise ValueError(
            "The Hugging Face Hub did not give this model. "
            f"Received: {address!r} ({_reason(error, hub)})"
        ) from error
    _check_hashes(folder, address)
    return folder


def hub_library(address):
    """`huggingface_hub`, which is not installed with the package."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "hf:// needs huggingface_hub: pip install huggingface_hub. "
            f"Received: {address!r}"
        ) from error
    return huggingface_hub


def _reason(error, hub):
    """What the client says in many lines, in one."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RevisionNotFoundError" in kinds:
        return "it has no such revision"
    if "RepositoryNotFoundError" in kinds or "GatedRepoError" in kinds:
        return (
            "no such repository, or one that asks who you are: "
            "`hf auth login` tells it"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the token is not accepted: `hf auth login` sets another"
    if "LocalEntryNotFoundError" in kinds:
        if hub.constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set, and the cache does not hold all"
        cause = getattr(error.__cause__, "response", None)
        if cause is not None:
            return f"the Hub answers {cause.status_code}"
        return (
            f"{hub.constants.ENDPOINT} is not reached, and the cache does not "
            "hold all"
        )
    return one_line(error)


def _check_hashes(folder, address):
    """Compares large files to their sha256, which the cache names them by.

    A file that differs leaves the cache, so that another call fetches it.
    """
    for path in folder.iterdir():
        blob = path.resolve()
        if not re.fullmatch("[0-9a-f]{64}", blob.name):
            continue
        if (actual := sha256(blob)) != blob.name:
            path.unlink()
            blob.unlink(missing_ok=True)
            raise ValueError(
                "The Hugging Face Hub did not give this model; the damaged "
                "file was taken out of the cache, and another call fetches it "
                f"anew. Received: {address!r} ({path.name} with sha256 "
                f"{actual}, expected {blob.name})"
            )
