"""The check of outside links: what it reads, and what it says of answers."""

import http.server
import importlib.util
import threading
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / "docs" / "check_links.py"

PAGE = """# Page
[a](https://a.org/x#part) ![b](<https://b.org/p.png>) [inside](docs/zoo.md)
<https://c.org/?q=1> and [a again](https://a.org/x), <img src="http://d.org/e">
[brackets](https://e.org/Net_(graph)), [titled](https://f.org/ "title")
`[code](https://not.org)`, https://bare.org/pdf, (https://g.org).
It runs at http://127.0.0.1:7860.
```bash
curl [x](https://not.org/fenced)
```
"""


@pytest.fixture
def links():
    specification = importlib.util.spec_from_file_location("links", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Answers(http.server.BaseHTTPRequestHandler):
    """/200 answers so; /head-404 to HEAD alone."""

    def do_GET(self):
        self.answer(int(self.path[-3:]) if "head" not in self.path else 200)

    def do_HEAD(self):
        self.answer(int(self.path[-3:]))

    def answer(self, code):
        self.send_response(code)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def site(links, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(links, "LOCAL", ("http://elsewhere",))
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_a_reader_can_follow(links):
    assert links.outside(PAGE) == [
        "https://a.org/x",
        "https://b.org/p.png",
        "https://c.org/?q=1",
        "http://d.org/e",
        "https://e.org/Net_(graph)",
        "https://f.org/",
        "https://bare.org/pdf",
        "https://g.org",
    ]


def test_what_is_said_of_answers(links, site):
    text = "".join(f"<{site}/{p}> " for p in ("200", "404", "head-405", "403"))
    lines, failed = links.complaints({"a.md": text, "b.md": f"<{site}/404>"})
    assert failed == 1
    assert lines == [
        f"404: {site}/404 (a.md, b.md)",
        f"403: {site}/403 (a.md)",
        "4 links, 1 broken",
    ]
    lines, failed = links.complaints({"a.md": f"<{site}/200>"})
    assert (lines, failed) == (["1 links, 0 broken"], 0)


def test_one_that_does_not_answer_is_broken(links, site):
    nobody = "http://127.0.0.1:9"  # nothing listens
    page = f"<{site}/200> <{nobody}>"
    [line, _], failed = links.complaints({"a.md": page})
    assert failed == 1 and "refused" in line and nobody in line


def test_without_a_network_it_says_so_and_fails(links, monkeypatch):
    monkeypatch.setattr(links, "LOCAL", ("http://elsewhere",))
    lines, failed = links.complaints({"a.md": "<http://127.0.0.1:9>"})
    assert failed and lines[0].startswith("No network: none of 1 links")
