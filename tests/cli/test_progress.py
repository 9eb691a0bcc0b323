"""The bar of long work: on a terminal, and nowhere else."""

import io
import sys

import pytest

from kanets import cli
from kanets.cli.progress import progress
from tests.photos import write_photos


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("piped", [False, True])
def test_a_terminal_shows_what_is_left(monkeypatch, capsys, piped):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: not piped)
    with progress(2000) as advance:
        advance(1200)
        advance(300)
        print("a line")
    out, shown = capsys.readouterr()
    assert "1,500 of 2,000 pictures" in shown and "s left" in shown
    if piped:
        assert out == "a line\n" and "a line" not in shown
    else:
        assert "a line" in shown and not out, "which is above the bar"


def test_no_terminal_shows_nothing(capsys):
    with progress(2) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_lines_of_json_on_a_terminal_have_no_bar(monkeypatch, capsys):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for name in ("stderr", "stdout", "__stdout__"):  # as `--json` does
        monkeypatch.setattr(sys, name, terminal)
    with progress(2) as advance:
        advance(2)
    assert not terminal.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_commands_show_it(monkeypatch, capsys, tmp_path, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    photos = write_photos(tmp_path / "photos", 2, 1, (4, 5), "png")
    assert not cli.main(["pack", str(photos), "--to", str(tmp_path / "pack")])
    out, shown = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'pack'}, train: 4 pictures of 2 ")
    assert ("packing 6 of 6 pictures" in shown) == terminal
    assert shown if terminal else not shown
