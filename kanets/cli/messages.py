"""Messages of Python's functions, as who typed a command knows the words."""

import re
from pathlib import Path


def one_line(text):
    """A text without its line breaks."""
    return " ".join(str(text).split())


def with_flags(message, flags):
    """A message with the command's flags for the arguments of Python.

    "`top_k` must ... Received: top_k=0" names `--top-k`, and "--top-k 0".

    Args:
        message: one line.
        flags: dict from the name of an argument to the flag.
    """
    if "data" in flags:  # in Python, what `load` and `verify` call it
        flags = {**flags, "source": "--data", "pictures": "--data"}
    for name, flag in flags.items():
        given = rf"(?<![^\s(`]){name}="  # not in a path, as runs/seed=1
        message = message.replace(f"`{name}`", f"`{flag}`")
        message = re.sub(rf"{given}None\b", f"no {flag}", message)
        message = re.sub(rf"{given}'(\S+?)'", rf"{flag} \1", message)
        message = re.sub(rf"{given}(?=\S)", f"{flag} ", message)
    return message


def about_report(result, folder):
    """Lines on where a model errs.

    Args:
        result: dict with `weakest`, of `kanets.evaluation.report`.
        folder: the report's.
    """
    lines = []
    if result["weakest"]:
        named = [f"{k} {value:.4f}" for k, value in result["weakest"].items()]
        lines.append(f"weakest classes: {'; '.join(named)}")
    pictures = sorted(path.name for path in Path(folder).glob("*.png"))
    return [*lines, f"where it errs: {folder} ({', '.join(pictures)})"]
