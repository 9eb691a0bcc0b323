"""What does a served bundle stand?

    python benchmarks/serving.py load --data cifar10/test
    python benchmarks/serving.py abuse
    python benchmarks/serving.py kill

A zoo entry is exported into a temporary folder and run by TensorFlow's C
library, which TensorFlow Serving is built on.

`load`: threads that ask at once, with batches of 1 to 8 JPEG files. Failures,
latency, and the resident memory after a warm-up of as many threads and at the
end. The classes are compared with those of one picture and one thread at a
time. Writes `benchmarks/serving_load.csv`.

`abuse`: what comes back for each kind of malformed request, and whether the
same good request is answered as before, after it. Shapes and dtypes reach the
graph unchecked, as they do in a server. Writes `benchmarks/serving_abuse.csv`.

`kill`: processes that export, version after version, into one folder, each
killed with SIGKILL at a random moment: in turns within the time of three
exports, and within a second of where files begin to be written. Then every
version is loaded and asked; broken is one that lacks a file, does not load, or
answers otherwise than one whose export was left alone. Writes
`benchmarks/serving_kill.csv`.
"""

import argparse
import contextlib
import csv
import gc
import io
import os
import platform
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from kanets.export import runtimes

HERE = Path(__file__).parent
MAX_BATCH = 8
# Exports to the folder, one version after the other, until it is killed.
EXPORTER = """
import sys
import kanets
model = kanets.load_model(sys.argv[1])
while True:
    print("begun", flush=True)
    kanets.export_savedmodel(model, sys.argv[2])
    print("written", flush=True)
"""


def export(entry, folder):
    """Exports in a process of its own: its memory is not measured."""
    code = (
        "import sys, kanets; "
        "kanets.export_savedmodel(kanets.load_model(sys.argv[1]), sys.argv[2])"
    )
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    subprocess.run(
        [sys.executable, "-c", code, entry, str(folder)],
        env=environment,
        check=True,
    )


def answer(outputs):
    """The class of each picture, or of each of its pixels."""
    if "classes" in outputs:
        return outputs["classes"][:, 0]
    return outputs["label_map"]


def machine(bundle):
    return f"{platform.machine()}, {os.cpu_count()} cores, {bundle.runtime}"


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text())


def resident():
    """MiB of resident memory, on Linux."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def load(options):
    paths = sorted(options.data.rglob("*.jp*g"))
    if not paths:
        raise SystemExit(f"There are no JPEG files in {options.data}")
    paths = paths[:: max(1, len(paths) // options.pictures)]
    files = [path.read_bytes() for path in paths[: options.pictures]]
    with tempfile.TemporaryDirectory() as folder:
        export(options.entry, folder)
        bundle = runtimes.load(folder, options.session_threads)
    alone = [answer(bundle(image_bytes=[file]))[0] for file in files]
    lock, results = threading.Lock(), []

    def ask(seed, count):
        """Of each request: seconds, pictures, those of another class."""
        chosen = random.Random(seed)
        for _ in range(count):
            size = chosen.randint(1, MAX_BATCH)
            rows = [chosen.randrange(len(files)) for _ in range(size)]
            error, others = None, 0
            start = time.perf_counter()
            try:
                outputs = bundle(image_bytes=[files[row] for row in rows])
            except Exception as raised:
                error = raised
            seconds = time.perf_counter() - start
            if error is None:
                pairs = zip(rows, answer(outputs), strict=True)
                others = sum(np.any(alone[r] != found) for r, found in pairs)
            with lock:
                results.append((seconds, size, others, error))

    def ask_from_all(pool, count, seed):
        """Returns the seconds until all threads have their answers."""
        results.clear()
        start = time.perf_counter()
        seeds = range(seed, seed + options.threads)
        list(pool.map(lambda seed: ask(seed, count), seeds))
        return time.perf_counter() - start

    with ThreadPoolExecutor(options.threads) as pool:
        ask_from_all(pool, -(-options.warm_up // options.threads), 10_000)
        before = resident()
        wall = ask_from_all(pool, options.requests, 0)
        after = resident()
    seconds, sizes, others, errors = zip(*results, strict=True)
    errors = [error for error in errors if error is not None]
    for text in sorted({str(error) for error in errors}):
        print(f"failed: {text}", file=sys.stderr)
    milliseconds = [1e3 * s for s in seconds]
    row = {
        "entry": options.entry,
        "threads": options.threads,
        "session_threads": options.session_threads,
        "requests": len(results),
        "pictures": sum(sizes),
        "failures": len(errors),
        "other_classes": sum(others),
        "requests_per_s": f"{len(results) / wall:.1f}",
        "pictures_per_s": f"{sum(sizes) / wall:.1f}",
        "median_ms": f"{statistics.median(milliseconds):.1f}",
        "p99_ms": f"{np.percentile(milliseconds, 99):.1f}",
        "warm_up_requests": options.warm_up,
        "resident_before_mib": f"{before:.1f}",
        "resident_after_mib": f"{after:.1f}",
        "growth_mib": f"{after - before:.1f}",
        "machine": machine(bundle),
    }
    write(options.to, [row])


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(height=71, width=97):
    """A smooth random picture."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3))
    return Image.fromarray(coarse.astype("uint8")).resize((width, height))


def png_of_zeros(height, width):
    """A PNG file of a few kilobytes, whole, of however many black pixels."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    deflate = zlib.compressobj(9)
    rows = b"".join(deflate.compress(bytes(width + 1)) for _ in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", rows + deflate.flush())
        + chunk(b"IEND", b"")
    )


def jpeg_that_claims(height, width):
    """A small JPEG file whose header states another size."""
    file = bytearray(encode(picture(8, 8), "JPEG"))
    frame = file.index(b"\xff\xc0") + 5
    file[frame : frame + 4] = struct.pack(">HH", height, width)
    return bytes(file)


def malformed():
    """Maps names to what is sent: a file, or an array in place of a batch."""
    jpeg, png = encode(picture(), "JPEG"), encode(picture(), "PNG")
    pixels = np.zeros((1, 9, 9, 3), np.uint8)
    return {
        "not an image": b"<html>not found</html>",
        "zero bytes": b"",
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated PNG": png[: len(png) // 2],
        "PNG without a header": png[:8],
        "GIF": encode(picture(), "GIF"),
        "JPEG of 12000 x 12000": jpeg_that_claims(12_000, 12_000),
        "PNG of 12000 x 12000": png_of_zeros(12_000, 12_000),
        "PNG that is 4294967295 wide": png[:16] + b"\xff" * 4 + png[20:],
        "JPEG of 1 x 1": encode(picture(1, 1), "JPEG"),
        "PNG of 1 x 1": encode(picture(1, 1), "PNG"),
        "CMYK JPEG": encode(picture().convert("CMYK"), "JPEG"),
        "empty batch of files": np.array([], object),
        "empty batch of pixels": pixels[:0],
        "files: int32": np.zeros(1, np.int32),
        "files: rank 0": np.array(jpeg, object),
        "files: rank 2": np.array([[jpeg]], object),
        "pixels: float32": pixels.astype(np.float32),
        "pixels: rank 3": pixels[0],
        "pixels: 4 channels": np.zeros((1, 9, 9, 4), np.uint8),
        "pixels: no rows": pixels[:, :0],
        "an input of another name": None,
    }


def abuse(options):
    with tempfile.TemporaryDirectory() as folder:
        export(options.entry, folder)
        names = {"serving_default": "image_bytes", "serve_images": "images"}
        bundles = {
            name: runtimes.load(folder, signature=signature)
            for signature, name in names.items()
        }
    good = [encode(picture(), "JPEG")]
    before = bundles["image_bytes"](image_bytes=good)
    rows = []
    for case, sent in malformed().items():
        start = time.perf_counter()
        try:
            if sent is None:
                outputs = bundles["image_bytes"](pictures=good)
            elif isinstance(sent, bytes):
                outputs = bundles["image_bytes"](image_bytes=[sent])
            else:
                name = "images" if "pixels" in case else "image_bytes"
                outputs = bundles[name]._run({name: sent})
            result = f"answered, pictures: {len(answer(outputs))}"
        except Exception as error:
            text = re.sub(r"\{\{.*?\}\}|\n.*", "", str(error)).strip()
            result = f"{type(error).__name__}: {text}"
        seconds = time.perf_counter() - start
        after = bundles["image_bytes"](image_bytes=good)
        same = all(np.array_equal(before[key], after[key]) for key in before)
        rows.append(
            {
                "request": case,
                "came_back": result,
                "next_good_request": "answered" if same else "differs",
                "milliseconds": f"{1e3 * seconds:.1f}",
                "entry": options.entry,
                "machine": machine(bundles["images"]),
            }
        )
    write(options.to, rows)


def files_in(folder):
    """Names of the files, whatever folder is the version."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in paths)


@contextlib.contextmanager
def exporting(entry, folder):
    """A process that exports to a folder until it is killed, at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORTER, entry, str(folder)],
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        first = process.stdout.readline()
        if first != "begun\n":
            raise SystemExit(f"The export did not begin: {first!r}")
        try:
            yield process
        finally:
            process.kill()


def seconds_of_an_export(entry, folder):
    """The mean of two; they are left in the folder."""
    with exporting(entry, folder) as process:
        start = time.perf_counter()
        for line in ("written\n", "begun\n", "written\n"):
            found = process.stdout.readline()
            if found != line:
                raise SystemExit(f"The export failed: {found!r}")
        return (time.perf_counter() - start) / 2


def export_and_kill(entry, folder, moment, writes):
    """Returns how many exports one process began and said it had written.

    The moment, in seconds, counts from the beginning of the first export or,
    if `writes`, from where its files begin to be written.
    """
    before = set(folder.glob(".tmp-*"))
    with exporting(entry, folder) as process:
        while writes and process.poll() is None:
            if set(folder.glob(".tmp-*")) - before:
                break
            time.sleep(0.002)
        time.sleep(moment)
        process.kill()
        lines = process.stdout.readlines()
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"The export ended itself: {process.returncode}")
    return 1 + lines.count("begun\n"), lines.count("written\n")


def is_broken(version, files, request, expected):
    """Whether a version differs from one whose export was left alone."""
    if files_in(version) != files:
        return True
    with contextlib.suppress(ValueError, RuntimeError):
        outputs = runtimes.load(version)(image_bytes=request)
        return any(
            not np.array_equal(outputs[key], expected[key]) for key in expected
        )
    return True


def kill(options):
    moments = random.Random(options.seed)
    request = [encode(picture(), "JPEG")]
    begun = written = 0
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary, "whole")
        mean = seconds_of_an_export(options.entry, whole)
        bundle = runtimes.load(whole / "1")
        files = files_in(whole / "1")
        expected = bundle(image_bytes=request)
        folder = Path(temporary, "killed")
        for number in range(options.kills):
            writes = number % 2 == 1
            last = options.writing if writes else mean * options.exports
            moment = moments.uniform(0, last)
            counts = export_and_kill(options.entry, folder, moment, writes)
            begun, written = begun + counts[0], written + counts[1]
            print(
                f"{number + 1}: after {moment:.2f} s{' of writing' * writes}, "
                f"{counts[0]} begun, {counts[1]} written",
                flush=True,
            )
        paths = list(folder.iterdir()) if folder.exists() else []
        versions = [path for path in paths if path.name.isdigit()]
        partial = [path for path in paths if path.name.startswith(".tmp-")]
        broken = [
            version
            for version in versions
            if is_broken(version, files, request, expected)
        ]
        for version in broken:
            print(f"broken: {version.name}", file=sys.stderr)
    row = {
        "entry": options.entry,
        "kills": options.kills,
        "seed": options.seed,
        "seconds_per_export": f"{mean:.2f}",
        "exports_begun": begun,
        "exports_reported": written,
        "complete_versions": len(versions),
        "partial_folders": len(partial),
        "other_names": len(paths) - len(versions) - len(partial),
        "broken_versions": len(broken),
        "machine": machine(bundle),
    }
    write(options.to, [row])


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parsers = {}
    for run in (load, abuse, kill):
        name = run.__name__
        command = parsers[name] = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--entry", default="kanet_qkv_cifar10")
        to = HERE / f"serving_{name}.csv"
        command.add_argument("--to", type=Path, default=to, help="a CSV file")
    add = parsers["load"].add_argument
    add("--data", type=Path, required=True, help="a folder of JPEG files")
    add("--pictures", type=int, default=1000, help="of the folder")
    add("--threads", type=int, default=32)
    add("--requests", type=int, default=300, help="of each thread")
    add("--warm-up", type=int, default=500, help="requests, of all threads")
    add("--session-threads", type=int, default=os.cpu_count())
    add = parsers["kill"].add_argument
    add("--kills", type=int, default=50)
    add("--seed", type=int, default=0)
    add("--exports", type=int, default=3, help="that each could have written")
    add("--writing", type=float, default=1.0, help="seconds, at the most")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
