"""What is in a folder of pictures: its parts, its files, and no surprises."""

import os
import warnings

TEST = "test"
VALIDATION_FOLDERS = ("val", "validation", "valid", TEST)
TEST_FOLDERS = (TEST, "val", "validation", "valid")


def has_splits(root):
    """Says whether `root/train/` is a class-folder tree of its own.

    A folder `train/` that holds pictures and no folders is a class.
    """
    train = root / "train"
    return train.is_dir() and any(map(_is_folder, _entries(train)))


def find_folder(root, names):
    """Returns the first of `root/<name>` that is a folder, or None.

    Raises:
        ValueError: one that comes before is a link that leads nowhere.
    """
    for folder in (root / name for name in names):
        _refuse_broken_link(folder)
        if folder.is_dir():
            return folder
    return None


def validates_on_test(root):
    """Whether the validation set of a tree is its folder `test/`."""
    folder = find_folder(root, VALIDATION_FOLDERS)
    return has_splits(root) and folder is not None and folder.name == TEST


def find_beside(root, name):
    """Returns the file `name` in `root` or in its parent, or None."""
    places = (root / name, root.absolute().parent / name)
    return next((place for place in places if place.is_file()), None)


def list_files(folder, suffixes):
    """Lists the files that lie directly in a folder.

    Args:
        folder: Path; one that does not exist holds no files.
        suffixes: the suffixes looked for, in lower case.

    Returns:
        `(found, others)`: lists of Path, sorted, hidden files left out.

    Raises:
        ValueError: the folder holds folders, or cannot be read.
    """
    if not folder.is_dir():
        return [], []
    entries = _entries(folder)
    nested = sorted(e.path for e in entries if _is_folder(e))
    if nested:
        raise ValueError(
            "Pictures must lie directly in their folder. Received: the folder "
            f"{nested[0]!r} inside {folder.name!r}"
        )
    files = [folder / name for name in sorted(e.name for e in entries)]
    found = [f for f in files if f.suffix.lower() in suffixes]
    return found, [f for f in files if f.suffix.lower() not in suffixes]


def warn_of_others(files):
    """Warns of files that are no pictures, if there are any."""
    if files:
        warnings.warn(
            f"{len(files)} file(s) without the suffix of a picture were "
            f"left out, for example {str(files[0])!r}.",
            stacklevel=5,
        )


def subfolders(root):
    entries = _entries(root)
    for entry in entries:
        _refuse_broken_link(root / entry.name)
    names = sorted(entry.name for entry in entries if _is_folder(entry))
    return [root / name for name in names]


def _entries(folder):
    """Returns the `os.DirEntry`s of a folder, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry
                for entry in entries
                if not entry.name.startswith((".", "__MACOSX"))
            ]
    except OSError as error:
        raise ValueError(
            "A folder of pictures must be one that can be read. Received: "
            f"{str(folder)!r} ({error.strerror})"
        ) from error


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _refuse_broken_link(path):
    """A set or a class must not go missing without a word."""
    if path.is_symlink() and not path.exists():
        raise ValueError(
            "A link beside the folders of pictures must lead somewhere: mend "
            f"or remove it. Received: {str(path)!r}, a link to "
            f"{os.readlink(path)!r}"
        )
