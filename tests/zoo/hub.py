"""A Hugging Face Hub on 127.0.0.1, and what may go wrong with it."""

import http.server
import json
import re

from kanets import zoo

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = ".safetensors"  # kept by sha256 there, as all large files
PRIVATE = "private"  # an owner whose repositories ask for `TOKEN`
TOKEN = "hf_secret"  # noqa: S105


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and repositories as the Hugging Face Hub does.

    `server.faults` has by a file's name what happens to it, once: "cut" sends
    half of it and hangs up, "short" sends half as if that were all, "altered"
    sends as many other bytes. `server.ranges` is what was asked for in part.
    """

    def log_message(self, *_):
        pass

    def send_head(self):
        self.server.paths.append(self.path)
        return super().send_head()

    def do_HEAD(self):  # noqa: N802
        if not self._refused():
            super().do_HEAD()

    def do_GET(self):  # noqa: N802
        if self._refused():
            return
        parts = self.path.split("?")[0].split("/")
        if parts[1] == "api":
            self._answer(*parts[3:7]) if len(parts) > 6 else self._lacks()
        elif self._file().is_file() and "resolve" in parts:
            self._send_part(self._file())
        else:
            super().do_GET()

    def _refused(self):
        """Answers 401 and 404 as the Hub does."""
        parts = re.sub("^/api/models", "", self.path).split("/")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if parts[1] == PRIVATE and token != TOKEN:
            message = "Invalid credentials in Authorization header"
            self.send_response(401)
            if token:
                self.send_header("X-Error-Message", message)
            else:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return True
        return False

    def _lacks(self, code="RepoNotFound"):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, owner, name, kind, revision):
        """What the client asks of a repository."""
        folder = self.server.root / owner / name
        if not folder.is_dir():
            return self._lacks()
        if revision not in ("main", "v1", COMMIT):
            return self._lacks("RevisionNotFound")
        answer = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": []}
        if kind == "tree":
            answer = [_entry(path) for path in folder.iterdir()]
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_part(self, path):
        """A file, or the rest of one, or what a fault makes of it."""
        self.server.paths.append(self.path)
        content, start = path.read_bytes(), 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            self.server.ranges.append((path.name, start))
        rest = content[start:]
        fault = self.server.faults.pop(path.name, None)
        sent = rest[: len(rest) // 2] if fault in ("cut", "short") else rest
        sent = sent[::-1] if fault == "altered" else sent
        promised = sent if fault == "short" else rest
        self.send_response(206 if asked else 200)
        if asked:
            last = len(content) - 1
            span = f"bytes {start}-{last}/{len(content)}"
            self.send_header("Content-Range", span)
        self.send_header("Content-Length", str(len(promised)))
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = fault == "cut"

    def _file(self):
        path = self.path.split("?")[0].replace(f"/resolve/{COMMIT}", "")
        return self.server.root / path.lstrip("/")

    def translate_path(self, path):
        return super().translate_path(path.replace(f"/resolve/{COMMIT}", ""))

    def end_headers(self):
        path = self._file()
        if path.is_file():
            self.send_header("ETag", f'"{_tag(path)}"')
            self.send_header("X-Repo-Commit", COMMIT)
        super().end_headers()


def _tag(path):
    digest = zoo.sha256(path)
    return digest if path.suffix == LARGE else digest[:40]


def _entry(path):
    size, tag = path.stat().st_size, _tag(path)
    entry = {"type": "file", "path": path.name, "size": size, "oid": tag[:40]}
    if path.suffix == LARGE:
        entry["lfs"] = {"oid": tag, "size": size, "pointerSize": 134}
    return entry
