"""Recipes as nested dicts and as TOML files."""

import dataclasses
import json
import tomllib

from kanets import tasks
from kanets.files import read_text


def from_dict(fields):
    """A recipe from nested dicts, as TOML gives them.

    Args:
        fields: the key of a section that only one task's recipes have, as
            "gan" or "segmenter", says which recipe it is; otherwise it is a
            `Recipe`.

    Raises:
        ValueError: an unknown field or section, an argument that the net does
            not take (the nearest known one is suggested), a value out of
            range.
    """
    task = tasks.of_recipe(fields)
    fields = {task.section: None, **fields}
    for field in dataclasses.fields(task.recipe):
        given, default = fields.get(field.name), field.default
        if isinstance(given, dict) and dataclasses.is_dataclass(default):
            given = {
                key: tuple(value) if type(value) is list else value
                for key, value in given.items()
            }
            fields[field.name] = {**vars(default), **given}
    return task.recipe(**fields)


def read(path):
    """A recipe from a TOML file.

    Raises:
        ValueError: the file is missing, not TOML, or not a recipe.
    """
    try:
        fields = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"A recipe must be a TOML file. Received: {str(path)!r} ({error})"
        ) from error
    return from_dict(fields)


def to_toml(recipe):
    """The text of a TOML file that `read` turns into the same recipe."""
    fields = dataclasses.asdict(recipe)
    sections = {k: v for k, v in fields.items() if isinstance(v, dict)}
    lines = [_toml_line(k, v) for k, v in fields.items() if k not in sections]
    for name, values in sections.items():
        lines.append(f"\n[{name}]")
        if name in _sections():  # TOML has no null
            values = {k: "none" if v is None else v for k, v in values.items()}
        lines += [_toml_line(k, v) for k, v in values.items() if v is not None]
    return "\n".join(lines) + "\n"


def arguments(section):
    """The arguments of a net, from a section of a recipe."""
    values = {k: None if v == "none" else v for k, v in section.items()}
    return {
        k: arguments(v) if isinstance(v, dict) else v for k, v in values.items()
    }


def _sections():
    return [task.section for task in tasks.TASKS.values()]


def _toml_line(name, value):
    return f"{name} = {_toml_value(value)}"


def _toml_value(value):
    if isinstance(value, dict):
        pairs = (f"{k} = {_toml_value(v)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    # JSON's strings, numbers, booleans and lists are TOML's, too.
    return json.dumps("none" if value is None else value, ensure_ascii=False)
