"""`kanets serve` over HTTP, with the clients of savedmodels/README.md."""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import kanets
from kanets.serve import server
from tests.backends import needs_tensorflow
from tests.photos import write_photos
from tests.serve.test_bundles import NAMES, b64, by_colour

pytest.importorskip("kserve", reason="make test-serve has KServe")
pytestmark = needs_tensorflow
README = Path(__file__).parents[2] / "savedmodels" / "README.md"
PATIENCE = 120  # seconds, for a machine that does other work
MOST = 100_000  # bytes of a request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = tmp_path_factory.mktemp("room")
    photos = write_photos(room / "photos", 1, 1, (6, 8), "jpg", quality=95)
    shutil.copy(photos / "val" / "red" / "0.jpg", room / "bee.jpg")
    kanets.export_savedmodel(by_colour(), room / "served" / "insects", NAMES)
    return room


@pytest.fixture(scope="module")
def port(room):
    port = free_port()
    command = [sys.executable, "-m", "kanets", "serve", str(room / "served")]
    command += ["--port", str(port), "--max-bytes", str(MOST)]
    log = room / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            get(port, "/v2/health/ready")
            break
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
    yield port
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE) in (0, -signal.SIGTERM, 130)
    assert "insects: version 1\n" in log.read_text()


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.read().decode()


def post(port, path, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def error(port, path, body):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(port, path, body)
    return caught.value.code, caught.value.read().decode()


def picture(room):
    return {"image_bytes": b64((room / "bee.jpg").read_bytes())}


def test_the_client_in_python_as_written(port, room, monkeypatch):
    [code] = re.findall(
        "```python\n([^`]*urllib.request.urlopen[^`]*)```", README.read_text()
    )
    printed = []
    monkeypatch.chdir(room)
    exec(code.replace("8501", str(port)), {"print": printed.append})
    assert printed == [["red", "blue"]]


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_client_of_curl_as_written(port, room):
    [code] = re.findall(
        "```bash\n(printf [^`]*curl[^`]*)```", README.read_text()
    )
    ran = subprocess.run(
        ["bash", "-c", code.replace("8501", str(port))],
        cwd=room,
        capture_output=True,
        text=True,
    )
    [found] = json.loads(ran.stdout)["predictions"]
    assert found["classes"] == ["red", "blue"]


def test_status_metadata_and_metrics(port):
    assert json.loads(get(port, "/v1/models")) == {"models": ["insects"]}
    status = json.loads(get(port, "/v1/models/insects"))
    assert status["ready"] and status["model_version_status"][0] == {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    found = json.loads(get(port, "/v1/models/insects/metadata"))
    assert "serve_images" in found["metadata"]["signature_def"]
    assert found["model_spec"] == {"name": "insects", "version": "1"}
    assert json.loads(get(port, "/v2/health/live"))["live"]


def test_metrics_count_requests(port, room):
    post(port, "/v1/models/insects:predict", {"instances": [picture(room)]})
    metrics = get(port, "/metrics")
    [count] = re.findall(
        r'request_predict_seconds_count{model_name="insects"} (\S+)', metrics
    )
    assert float(count) >= 1


def test_what_is_refused(port, room):
    path = "/v1/models/insects:predict"
    code, text = error(port, path, {"instances": [b64(b"GIF89a")]})
    assert code == 400 and "must hold JPEG or PNG" in text
    assert error(port, path, b"{")[0] == 400
    assert error(port, path, {"instances": ["x" * MOST]})[0] == 413
    code, text = error(port, "/v1/models/nobody:predict", {})
    assert code == 404 and "nobody" in text
    numbered = "/v1/models/insects/versions/9:predict"
    code, text = error(port, numbered, {"instances": [picture(room)]})
    assert code == 404 and "no version 9" in text
    assert post(port, path, {"instances": [picture(room)]})["predictions"]


def test_a_version_of_number_zero(port, room):
    folder = room / "served" / "insects" / "0"
    shutil.copytree(folder.with_name("1"), folder)
    path = "/v1/models/insects/versions/0/metadata"
    version = json.loads(get(port, path))["model_spec"]["version"]
    assert version == "0"
    shutil.rmtree(folder)


def test_a_port_that_is_taken_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"be free .*: port={port} of 127"):
            server._check_free("127.0.0.1", port)
    server._check_free("127.0.0.1", port)


def test_a_request_is_received_before_it_is_refused():
    """A part of 10 at a time: all of 30, and of 90 what is past 40."""

    async def sent(length):
        parts = [
            {"body": bytes(10), "more_body": end < length}
            for end in range(10, length + 10, 10)
        ]
        answers = []

        async def receive():
            return parts.pop(0)

        async def send(message):
            answers.append(message)

        headers = [(b"content-length", str(length).encode())]
        scope = {"type": "http", "headers": headers}
        await server._Limit(None, max_bytes=10)(scope, receive, send)
        return len(parts), answers[0]["status"]

    assert asyncio.run(sent(30)) == (0, 413)
    assert asyncio.run(sent(90)) == (5, 413)


def test_answers_do_not_wait_for_a_version_to_load():
    class Slow:
        failed = {}
        begun, go_on = threading.Event(), threading.Event()

        def swap(self):
            self.begun.set()
            assert self.go_on.wait(PATIENCE)

        def answer(self, request, number):
            return request

    async def asked(slow):
        polling = asyncio.create_task(server._poll({"slow": slow}, 0, print))
        await asyncio.to_thread(slow.begun.wait, PATIENCE)
        with ThreadPoolExecutor(1) as pool:
            answer = await server._answered(None, slow, pool, {"x": 1})
        slow.go_on.set()
        polling.cancel()
        return answer

    assert asyncio.run(asked(Slow())) == {"x": 1}


def test_a_new_version_answers_without_a_restart(port, room):
    request = {"instances": [picture(room)]}

    def best(path):
        return post(port, path, request)["predictions"][0]["classes"][0]

    path = "/v1/models/insects"
    assert best(f"{path}:predict") == "red"
    kanets.export_savedmodel(
        by_colour(-1.0), room / "served" / "insects", NAMES
    )
    end = time.monotonic() + PATIENCE
    while best(f"{path}:predict") == "red":
        assert time.monotonic() < end
        time.sleep(0.5)
    assert best(f"{path}/versions/1:predict") == "red"
    assert best(f"{path}/versions/2:predict") == "blue"
