"""Draws docs/served.png: a photo, and what `kanets serve` answers about it.

    KANETS_CHROMIUM=chromium python docs/make_served.py flowers/val/tulips/PHOTO.jpg

Exports kanet_lite0_flowers to a temporary folder, serves it, asks as the page
on serving does, and lets headless Chromium make a picture of the commands and
of what they printed. Needs KServe (`pip install "kanets[serve]"`),
Playwright and curl.
"""  # noqa: E501

import argparse
import base64
import contextlib
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
ENTRY, NAME, PORT = "kanet_lite0_flowers", "flowers", 8501
KANETS = [sys.executable, "-m", "kanets"]
ASK = """printf '{{"instances": [{{"image_bytes": {{"b64": "%s"}}}}]}}' \\
    "$(base64 < {photo} | tr -d '\\n')" |
  curl --silent --data @- http://localhost:8501/v1/models/flowers:predict"""
SIZE = {"width": 1060, "height": 300}  # of the picture, at least
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 20px; background: #fff; display: flex; gap: 20px;
  font: 14px/1.45 "Open Sans", sans-serif; color: #333; }}
pre {{ margin: 0; padding: 16px 20px; background: #1e2230; color: #c8d0e0;
  border-radius: 8px; font: 13px/1.5 "DejaVu Sans Mono", monospace;
  width: 640px; white-space: pre-wrap; word-break: break-all; }}
pre b {{ color: #fff; font-weight: normal; }}
pre i {{ color: #7fd88f; font-style: normal; }}
pre em {{ color: #f4c26b; font-style: normal; }}
figure {{ margin: 0; width: 300px; }}
img {{ width: 300px; border-radius: 8px; display: block; }}
figcaption {{ margin-top: 6px; }}
</style>
<div><pre>{first}</pre><pre style="margin-top: 12px">{second}</pre></div>
<figure><img src="data:image/jpeg;base64,{photo}"><figcaption>{name}
</figcaption></figure>"""


@contextlib.contextmanager
def serving(folder):
    """`kanets serve` of a folder; gives what it printed until it is ready."""
    command = [*KANETS, "serve", folder.name, "--port", str(PORT)]
    process = subprocess.Popen(
        command,
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    with process:
        try:
            printed = [process.stdout.readline(), process.stdout.readline()]
            while True:
                ready = f"http://127.0.0.1:{PORT}/v2/health/ready"
                with contextlib.suppress(OSError):
                    with urllib.request.urlopen(ready):
                        break
                if process.poll() is not None:
                    raise SystemExit("It does not serve: is the port taken?")
                time.sleep(0.2)
            yield "".join(printed)
        finally:
            process.terminate()


def terminal(command, printed):
    """HTML of a command and of what it printed."""
    command, printed = html.escape(command), html.escape(printed)
    printed = re.sub("(&quot;[a-z]+&quot;)(?!:)", r"<em>\1</em>", printed)
    return f"<i>$</i> <b>{command}</b>\n{printed.rstrip()}"


def draw(page, to, chromium):
    """Writes what a page shows as a PNG, finer than a screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        window = browser.new_page(viewport=SIZE, device_scale_factor=1.5)
        window.goto(page.as_uri())
        window.screenshot(path=to, full_page=True)
        browser.close()
    Image.open(to).convert("RGB").quantize(256).save(to, optimize=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("photo", type=Path)
    parser.add_argument("--to", type=Path, default=HERE / "served.png")
    options = parser.parse_args()
    chromium = os.environ.get("KANETS_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        raise SystemExit("No Chromium: KANETS_CHROMIUM names one")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "savedmodels")
        export = [*KANETS, "export", ENTRY, "--to", str(folder / NAME)]
        subprocess.run(export, check=True)
        name = f"{options.photo.parent.name.rstrip('s')}.jpg"
        shutil.copy(options.photo, Path(temporary, name))
        ask = ASK.format(photo=name)
        with serving(folder) as printed:
            answer = subprocess.run(
                ["bash", "-c", f"set -o pipefail; {ask}"],
                cwd=temporary,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        page = Path(temporary, "page.html")
        photo = base64.b64encode(options.photo.read_bytes()).decode()
        page.write_text(
            PAGE.format(
                first=terminal("kanets serve savedmodels", printed),
                second=terminal(ask, answer),
                photo=photo,
                name=name,
            )
        )
        draw(page, options.to, chromium)


if __name__ == "__main__":
    main()
