"""Imports point one way: nothing below imports what is above."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
# From the bottom up; a room may import its own and those before it. The last
# is all that has no other.
ROOMS = (
    (
        *("kanets.checks", "kanets.compat", "kanets.files"),
        *("kanets.progress", "kanets.typed"),
        *("kanets.layers.batch_normalization", "kanets.nets.logits"),
    ),
    ("kanets.attention",),
    ("ylg",),
    ("kanets.layers", "kanets.ops"),
    (
        *("kanets.data", "kanets.train.augment", "kanets.train.losses"),
        "kanets.train.optimizers",
    ),
    ("kanets.nets",),
    ("kanets",),
    ("kanets.cli", "kanets.gan_commands", "kanets.__main__"),
)
# Up to now.
EXCEPTIONS = set()


def level(module):
    names = [
        (len(name), i)
        for i, room in enumerate(ROOMS)
        for name in room
        if f"{module}.".startswith(f"{name}.")
    ]
    return max(names)[1]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(path):
    """Modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n if is_module(n) else node.module for n in whole]
        else:
            continue
        yield from (n for n in names if n.split(".")[0] in ("kanets", "ylg"))


def test_no_import_points_upward():
    upward = set()
    for folder in ("kanets", "ylg"):
        for path in (ROOT / folder).rglob("*.py"):
            module = module_of(path)
            for other in imported(path):
                if level(other) > level(module) and module != "kanets":
                    upward.add((module, other))
    assert upward == EXCEPTIONS


def test_attention_and_the_bottom_import_nothing_else():
    bottom = ("checks.py", "compat.py", "files.py", "progress.py", "typed.py")
    for room in ("attention", *bottom):
        place = ROOT / "kanets" / room
        for path in place.rglob("*.py") if place.is_dir() else [place]:
            if path.exists():
                others = {n for n in imported(path) if level(n) > 1}
                assert not others, path
    checks = ROOT / "kanets" / "checks.py"
    assert not list(imported(checks))
