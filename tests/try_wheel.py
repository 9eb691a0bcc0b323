"""Asks three commands of an installed kanets about a picture, to one answer.

    build/empty/bin/python tests/try_wheel.py PICTURE

Run by the Python of an environment that has the wheel with the extras `app`
and `serve`, outside of this repository: `make test-wheel` does. `kanets
predict`, `serve` and `app` must all name the same class.
"""

import base64
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ENTRY = "kanet_qkv_cifar10"
KANETS = str(Path(sys.executable).with_name("kanets"))
PATIENCE = 300  # seconds, until a server answers


def main():
    picture = Path(sys.argv[1]).resolve()
    command = [KANETS, "predict", ENTRY, str(picture), "--json"]
    printed = subprocess.run(command, check=True, capture_output=True).stdout
    expected = json.loads(printed)["classes"][0]
    print(f"kanets predict: {expected}")
    for name, ask in (("serve", served), ("app", on_page)):
        found = ask(picture)
        print(f"kanets {name}: {found}")
        if found != expected:
            raise SystemExit(f"kanets {name} says something else")


def served(picture):
    """The class that `kanets serve` answers with, over HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        export = [KANETS, "export", ENTRY, "--to", f"{folder}/{ENTRY}"]
        subprocess.run(export, check=True, capture_output=True)
        with running("serve", folder, ready="/v2/health/ready") as address:
            content = base64.b64encode(picture.read_bytes()).decode()
            request = {"instances": [{"image_bytes": {"b64": content}}]}
            with urllib.request.urlopen(
                f"{address}/v1/models/{ENTRY}:predict",
                json.dumps(request).encode(),
            ) as answer:
                [prediction] = json.load(answer)["predictions"]
    return prediction["classes"][0]


def on_page(picture):
    """The class that the page of `kanets app` shows, over its interface."""
    import gradio_client

    with running("app", ready="/") as address:
        client = gradio_client.Client(address, verbose=False)
        best, *_ = client.predict(
            ENTRY, gradio_client.handle_file(picture), api_name="/look"
        )
    return best["label"]


@contextlib.contextmanager
def running(*command, ready):
    """Runs a server; gives its address once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    with subprocess.Popen([KANETS, *command, "--port", str(port)]) as server:
        try:
            while True:
                with contextlib.suppress(OSError):
                    with urllib.request.urlopen(address + ready):
                        break
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"kanets {command[0]} does not answer")
                time.sleep(0.5)
            yield address
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
