"""What does a served bundle stand?

    python benchmarks/serving.py load --data cifar10/test
    python benchmarks/serving.py abuse
    python benchmarks/serving.py kill

A zoo entry is exported into a temporary folder and run by TensorFlow's C
library, which TensorFlow Serving is built on, or by `kanets serve`.

`load` (`pip install "kanets[bench,serve]"`): clients that ask at once, again
as soon as they have their answer, with batches of 1 to 8 JPEG files: threads
that call the bundle in this process, then clients of `kanets serve`, of
locust, in a process of their own. Failures, latency, seconds of processor, and
the resident memory of this process or the server's, after a warm-up and at the
end. The classes are compared with those of one picture at a time. Clients and
server share the machine. Three minutes; writes `benchmarks/serving_load.csv`.

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
import base64
import contextlib
import gc
import io
import json
import os
import platform
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tables import write

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


def memory_and_processor(process):
    """MiB of resident memory and seconds of processor, on Linux."""
    gc.collect()
    place = Path("/proc", str(process))
    memory = re.search(r"VmRSS:\s+(\d+)", (place / "status").read_text())[1]
    ticks = (place / "stat").read_text().rsplit(") ", 1)[1].split()[11:13]
    seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return int(memory) / 1024, seconds


def ask_bundle(bundle, files, alone, clients, seconds):
    """What `serving_clients.py` writes, of threads that call a bundle."""
    until = time.time() + seconds
    answers = []

    def ask(seed):
        chosen = random.Random(seed)
        while time.time() < until:
            size = chosen.randint(1, MAX_BATCH)
            rows = [chosen.randrange(len(files)) for _ in range(size)]
            error, others = None, 0
            start = time.time()
            try:
                outputs = bundle(image_bytes=[files[row] for row in rows])
            except Exception as raised:
                error = str(raised)
            end = time.time()
            if error is None:
                pairs = zip(rows, answer(outputs), strict=True)
                others = sum(alone[row] != found for row, found in pairs)
            answers.append((end - start, end, size, int(others), error))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(clients)))
    return answers


def ask_server(port, name, requests, clients, seconds):
    """What `serving_clients.py` writes, of locust's clients of a server."""
    answers = requests.with_name("answers.json")
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
    command += ["--locustfile", HERE / "serving_clients.py"]
    command += ["--host", f"http://127.0.0.1:{port}/v1/models/{name}"]
    command += ["--users", str(clients), "--spawn-rate", str(clients)]
    command += ["--run-time", f"{seconds}s", "--stop-timeout", "60"]
    environment = os.environ | {
        "SERVING_REQUESTS": str(requests),
        "SERVING_ANSWERS": str(answers),
    }
    ran = subprocess.run(
        [*command, "--exit-code-on-error", "0"],
        env=environment,
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise SystemExit(f"locust failed:\n{ran.stdout}{ran.stderr}")
    return json.loads(answers.read_text())


@contextlib.contextmanager
def serving(folder, threads):
    """A process of `kanets serve` and its port, until the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "kanets", "serve", str(folder)]
    command += ["--port", str(port), "--threads", str(threads)]
    # Its log of requests is of no use, and a pipe that nobody reads fills.
    with (folder / ".log").open("w+") as log:
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                while not is_ready(port):
                    if process.poll() is not None:
                        log.seek(0)
                        raise SystemExit(f"It does not serve:\n{log.read()}")
                    time.sleep(0.2)
                yield process.pid, port
            finally:
                process.terminate()


def is_ready(port):
    address = f"http://127.0.0.1:{port}/v2/health/ready"
    with contextlib.suppress(OSError), urllib.request.urlopen(address):
        return True
    return False


def load(options):
    paths = sorted(options.data.rglob("*.jp*g"))
    if not paths:
        raise SystemExit(f"There are no JPEG files in {options.data}")
    paths = paths[:: max(1, len(paths) // options.pictures)]
    files = [path.read_bytes() for path in paths[: options.pictures]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "served")
        export(options.entry, folder / options.entry)
        bundle = runtimes.load(folder / options.entry, options.threads)
        alone = [answer(bundle(image_bytes=[file]))[0] for file in files]
        if not isinstance(alone[0], bytes):
            raise SystemExit(f"Not a classifier: {options.entry}")
        requests = Path(temporary, "requests.json")
        texts = [base64.b64encode(file).decode() for file in files]
        classes = [name.decode() for name in alone]
        content = list(zip(texts, classes, strict=True))
        requests.write_text(json.dumps([MAX_BATCH, content]))

        def in_process(clients, seconds):
            return ask_bundle(bundle, files, alone, clients, seconds)

        def over_http(clients, seconds):
            return ask_server(port, options.entry, requests, clients, seconds)

        rows = measured("the bundle", in_process, os.getpid(), options)
        with serving(folder, options.threads) as (process, port):
            rows += measured("kanets serve", over_http, process, options)
    for row in rows:
        row |= {"entry": options.entry, "machine": machine(bundle)}
    write(options.to, rows)


def measured(name, ask, process, options):
    """A row for each number of clients, after a warm-up with the most."""
    ask(max(options.clients), options.warm_up)
    rows = []
    for clients in options.clients:
        before = memory_and_processor(process)
        answers = ask(clients, options.seconds)
        after = memory_and_processor(process)
        seconds, ends, sizes, others, errors = zip(*answers, strict=True)
        for text in sorted({error for error in errors if error}):
            print(f"failed: {text}", file=sys.stderr)
        begins = [end - took for end, took in zip(ends, seconds, strict=True)]
        wall = max(ends) - min(begins)
        milliseconds = [1e3 * took for took in seconds]
        processor = 1e3 * (after[1] - before[1]) / sum(sizes)
        rows.append(
            {
                "asked": name,
                "clients": clients,
                "threads": options.threads,
                "requests": len(answers),
                "pictures": sum(sizes),
                "failures": sum(error is not None for error in errors),
                "other_classes": sum(others),
                "requests_per_s": f"{len(answers) / wall:.1f}",
                "pictures_per_s": f"{sum(sizes) / wall:.1f}",
                "processor_ms_per_picture": f"{processor:.2f}",
                "median_ms": f"{statistics.median(milliseconds):.1f}",
                "p99_ms": f"{np.percentile(milliseconds, 99):.1f}",
                "resident_before_mib": f"{before[0]:.1f}",
                "resident_after_mib": f"{after[0]:.1f}",
                "growth_mib": f"{after[0] - before[0]:.1f}",
            }
        )
    return rows


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
    add("--clients", type=int, nargs="+", default=[1, 32], help="at once")
    add("--seconds", type=int, default=30, help="for each number of clients")
    add("--warm-up", type=int, default=10, help="seconds")
    add("--threads", type=int, default=os.cpu_count(), help="that answer")
    add = parsers["kill"].add_argument
    add("--kills", type=int, default=50)
    add("--seed", type=int, default=0)
    add("--exports", type=int, default=3, help="that each could have written")
    add("--writing", type=float, default=1.0, help="seconds, at the most")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
