"""Asks the page of `examples/browser` in headless Chromium, and shows it.

    npm install onnxruntime-web
    python docs/make_browser.py PHOTO --chromium CHROMIUM \
        --runtime node_modules/onnxruntime-web/dist

Exports `kanet_lite0_imagenet` as ONNX, serves it with the page and ONNX Runtime
Web on 127.0.0.1, chooses the photo as a visitor would and writes `browser.png`
beside this file. Needs playwright.
"""

import argparse
import contextlib
import functools
import http.server
import shutil
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "examples" / "browser" / "index.html"
MODULE = "runtime/ort.wasm.min.mjs"


@contextlib.contextmanager
def served(exported, runtime):
    """The address of the page with an exported model, on 127.0.0.1."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(PAGE, folder)
        shutil.copytree(exported, Path(folder) / "model")
        (Path(folder) / "runtime").symlink_to(Path(runtime).resolve())
        handler = functools.partial(_Quiet, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/index.html"
            yield f"{address}?runtime=./{MODULE}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *arguments):
        pass


def ask(address, photo, chromium, picture=None):
    """What the page answers: pairs of a class and a share, best first."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 800, "height": 720})
        page.set_default_timeout(120_000)  # milliseconds
        page.goto(address)
        page.locator("#file").set_input_files(photo)
        page.wait_for_selector("text=/ms in this browser|did not work/")
        note = page.locator("#note").inner_text()
        if "did not work" in note:
            raise RuntimeError(note)
        cells = page.locator("#answer td").all_inner_texts()
        if picture is not None:
            page.screenshot(path=picture)
        browser.close()
    shares = [float(share.rstrip(" %")) / 100 for share in cells[1::2]]
    return list(zip(cells[::2], shares, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photo")
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--runtime", required=True)
    options = parser.parse_args()

    import kanets

    model = kanets.load_model("kanet_lite0_imagenet")
    with tempfile.TemporaryDirectory() as folder:
        exported = kanets.export_onnx(model, Path(folder) / "photos")
        with served(exported, options.runtime) as address:
            picture = HERE / "browser.png"
            print(ask(address, options.photo, options.chromium, picture))


if __name__ == "__main__":
    main()
