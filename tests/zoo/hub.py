"""A Hugging Face Hub on 127.0.0.1."""

import http.server
import json

from kanets import zoo

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and repositories as the Hugging Face Hub does."""

    def log_message(self, *_):
        pass

    def send_head(self):
        self.server.paths.append(self.path)
        return super().send_head()

    def do_GET(self):  # noqa: N802
        parts = self.path.split("?")[0].split("/")
        if parts[1] != "api":
            return super().do_GET()
        if len(parts) < 7:  # what the client asks the real hub besides
            return self.send_error(404, "no such page")
        owner, name, kind, revision = parts[3:7]
        folder = self.server.root / owner / name
        if not folder.is_dir() or revision not in ("main", "v1", COMMIT):
            return self.send_error(404, "no such repository or revision")
        answer = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": []}
        if kind == "tree":
            answer = [
                {
                    "type": "file",
                    "path": path.name,
                    "size": path.stat().st_size,
                    "oid": zoo.sha256(path)[:40],
                }
                for path in folder.iterdir()
            ]
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def translate_path(self, path):
        return super().translate_path(path.replace(f"/resolve/{COMMIT}", ""))

    def end_headers(self):
        path = self.server.root / self.path.replace(
            f"/resolve/{COMMIT}", ""
        ).lstrip("/")
        if path.is_file():
            self.send_header("ETag", f'"{zoo.sha256(path)[:40]}"')
            self.send_header("X-Repo-Commit", COMMIT)
        super().end_headers()
