"""The pages lead somewhere, and say what the code says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "build", "runs"} & set(path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\]\(\s*<?([^)#?>\s]+)|(?:src|href)=\"([^\"#?]+)\"")
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)
def test_every_link_leads_to_a_file(page):
    links = map("".join, LINK.findall(page.read_text(encoding="utf-8")))
    missing = [
        link
        for link in links
        if ":" not in link and not (page.parent / link).exists()
    ]
    assert not missing


def test_the_page_of_the_command_line_is_that_of_the_commands(tmp_path):
    make = (ROOT / "docs" / "make_command_line.py").read_text(encoding="utf-8")
    names = {"__name__": "make_command_line", "__file__": str(tmp_path / "x")}
    exec(compile(make, "make_command_line.py", "exec"), names)
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    # Lines are broken where Typer's version breaks them.
    assert "".join(page.split()) == "".join(names["page"]().split())


def test_every_example_has_its_place():
    assert EXAMPLES
    listed = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in EXAMPLES:
        assert f"[{name}](../examples/{name})" in listed
        assert f"- examples/{name}\n" in site
        text = (ROOT / "examples" / name).read_text(encoding="utf-8")
        assert re.search(
            r"# # .+\n#\n# \*\*Author:\*\* .+ \*\*Date:\*\* [\d-]+\.\n"
            r"# \*\*Description:\*\* ",
            text,
        )


def test_the_first_page_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
