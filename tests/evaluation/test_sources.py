"""Pictures of the web, of standard input and of videos; tables of answers."""

import csv
import http.server
import io
import json
import shutil
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from kanets import cli, data, evaluation, zoo
from kanets.evaluation import sources, tables
from kanets.evaluation.artifacts import Artifact
from kanets.evaluation.files import read, read_file
from tests.backends import needs_tensorflow
from tests.evaluation.test_classification import NAMES, by_colour
from tests.photos import write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 1, 4, (6, 8), "png")


@pytest.fixture
def model(tmp_path):
    return zoo.save_model(by_colour(2, "softmax"), tmp_path / "model", NAMES)


@pytest.fixture(scope="module")
def server(photos):
    """A web server, by its address."""
    picture = (photos / "val" / "red" / "0.png").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/elsewhere.png":
                self.send_response(302)
                self.send_header("Location", "/red.png?size=3")
                return self.end_headers()
            if self.path in ("/file.png", "/ftp.png"):
                self.send_response(302)
                kind = self.path[1:].removesuffix(".png")
                self.send_header("Location", f"{kind}://127.0.0.1/x.png")
                return self.end_headers()
            if not self.path.startswith(("/red", "/short", "/slow", "/long")):
                return self.send_error(404)
            self.send_response(200)
            if self.path != "/long":
                self.send_header("Content-Length", str(len(picture)))
            self.end_headers()
            if self.path == "/slow":
                self.wfile.write(picture[:10])
                self.wfile.flush()
                released.wait(60)
            elif self.path == "/short":
                self.wfile.write(picture[:10])
            else:
                self.wfile.write(picture)

        def log_message(self, *_):
            pass

    released = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_folders_behind_links_are_looked_into(photos, tmp_path):
    """Once: a link to where it is in leads nowhere new."""
    shutil.copytree(photos / "val" / "red", tmp_path / "real")
    top = tmp_path / "top"
    (top / "below").mkdir(parents=True)
    (top / "cats").symlink_to(tmp_path / "real")
    (top / "below" / "up").symlink_to(top)
    found = evaluation.find_pictures([top])
    expected = sorted((top / "cats").glob("*.png"))
    assert expected and list(found) == expected


def test_a_picture_of_the_web(photos, model, server):
    file = photos / "val" / "red" / "0.png"
    [(_, expected)] = evaluation.predict(model, [file])
    for name in ("red.png?size=3", "elsewhere.png"):
        [(found, ranked)] = evaluation.predict(model, [f"{server}/{name}"])
        assert str(found) == f"{server}/{name}" and ranked == expected
    assert read_file(sources.Address(f"{server}/red")) == file.read_bytes()
    names = {"/a/b%20c.png?d=e.f": "b c", "": "127.0.0.1"}
    for path, stem in names.items():
        assert sources.Address(f"http://127.0.0.1{path}").stem == stem


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.png", "HTTP 404 Not Found"),
        ("short", "the answer ended early"),
        ("ftp.png", "unknown url type: ftp"),
        ("file.png", "HTTP 302 .* not allowed|unknown url type: file"),
    ],
)
def test_what_cannot_be_fetched_is_told(server, name, reason):
    with pytest.raises(
        data.BadPicturesError, match=f"{name}: cannot be fetched: .*{reason}"
    ):
        read(sources.Address(f"{server}/{name}"))


def test_an_answer_must_come_in_time(server, monkeypatch):
    monkeypatch.setattr(sources, "TIMEOUT", 0.2)
    with pytest.raises(data.BadPicturesError, match="within 0.2 seconds"):
        read(sources.Address(f"{server}/slow"))
    # One that trickles: each part in time, the whole not.
    monkeypatch.setattr(sources, "TIMEOUT", 60)
    past = iter([0.0, 61.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(past, 61.0))
    with pytest.raises(data.BadPicturesError, match="within 60 seconds"):
        read(sources.Address(f"{server}/red"))


@pytest.mark.parametrize("name", ["red", "long"])
def test_a_picture_has_a_greatest_size(server, monkeypatch, name):
    monkeypatch.setattr(sources, "MAX_BYTES", 100)
    with pytest.raises(data.BadPicturesError, match="limit is 100 bytes"):
        read(sources.Address(f"{server}/{name}"))


def test_nobody_listens(photos, model, server, capsys):
    gone = "http://127.0.0.1:1/x.png"
    good = str(photos / "val" / "red" / "0.png")
    command = ["predict", str(model), gone, good]
    assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert err.startswith("kanets: error: Every picture") and gone in err
    assert cli.main([*command, "--on-error", "skip"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}: red ") and out.count("\n") == 1
    reason, total = err.splitlines()
    assert reason.startswith(f"kanets: {gone}: cannot be fetched: ")
    assert total == "kanets: 1 of 2 pictures left out"


def test_a_picture_on_the_standard_input(photos, model, monkeypatch, capsys):
    content = (photos / "val" / "red" / "0.png").read_bytes()

    def give(content):
        pipe = io.TextIOWrapper(io.BytesIO(content))
        monkeypatch.setattr(sys, "stdin", pipe)

    give(content)
    assert cli.main(["predict", str(model), "-"]) == 0
    assert capsys.readouterr().out.startswith("-: red ")
    give(b"")
    assert cli.main(["predict", str(model), "-"]) == 1
    assert "-: empty (0 bytes)" in capsys.readouterr().err
    assert cli.main(["predict", str(model), "-", "-"]) == 1
    assert "named once. Received: - more" in capsys.readouterr().err


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Three seconds of blue, then three of red, ten frames each."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path = tmp_path_factory.mktemp("videos") / "film.avi"
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), code, 10, (64, 48))
    for colour in ((200, 40, 40), (40, 40, 200)):  # blue, green, red
        for _ in range(30):
            writer.write(np.full((48, 64, 3), colour, np.uint8))
    writer.release()
    return path


def test_frames_of_a_video(model, video):
    for every, seconds in (
        (1.0, [0, 1, 2, 3, 4, 5]),
        (2.5, [0, 2.5, 5]),
        (0.1, np.arange(60) / 10),
        (100, [0]),
    ):
        pictures = evaluation.find_pictures([video], every)
        results = evaluation.predict(model, pictures)
        assert [str(picture) for picture, _ in results] == [
            f"{video}#t={second:.3f}" for second in seconds
        ]
        assert len(pictures) == len(results)
        for second, (_, ranked) in zip(seconds, results, strict=True):
            assert ranked[0][0] == ("red" if second >= 3 else "blue")


def test_a_frame_is_a_file_to_a_bundle(video):
    frame = next(iter(evaluation.find_pictures([video])))
    assert frame.stem == "film_0000.000"
    pixels = np.asarray(Image.open(io.BytesIO(read_file(frame))))
    assert np.array_equal(pixels, read(frame)) and pixels.shape == (48, 64, 3)


def test_a_video_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "film.mp4").write_bytes(b"no video")
    [bad] = pictures = evaluation.find_pictures([tmp_path / "film.mp4"])
    assert len(pictures) == 1
    with pytest.raises(
        data.BadPicturesError, match="film.mp4: (damaged: no frame|videos are)"
    ):
        read(bad)
    monkeypatch.setitem(sys.modules, "cv2", None)
    [bad] = evaluation.find_pictures([tmp_path / "film.mp4"])
    with pytest.raises(data.BadPicturesError, match=r"kanets\[video\]"):
        read(bad)
    for every in (0, -1, True, float("nan"), "1"):
        with pytest.raises(ValueError, match=f"`every` must.*every={every!r}"):
            evaluation.find_pictures([tmp_path / "film.mp4"], every)


def rows_of(path):
    """The rows of a table, whatever it is written in."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        return (
            pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        {
            "picture": row["picture"],
            "class_1": row["classes"][0],
            "score_1": row["scores"][0],
        }
        for row in map(json.loads, lines)
    ]


@pytest.mark.parametrize("suffix", tables.TABLES)
def test_answers_as_a_table(
    photos, model, tmp_path, monkeypatch, capsys, suffix
):
    monkeypatch.setattr(tables, "_GROUP", 3)  # two whole groups, and a part
    table = tmp_path / f"results{suffix}"
    command = ["predict", str(model), str(photos / "val"), "--to", str(table)]
    assert cli.main([*command, "--top-k", "1"]) == 0
    assert capsys.readouterr() == (f"{table}: 8 pictures\n", "")
    expected = evaluation.predict(model, [photos / "val"])
    rows = rows_of(table)
    assert list(rows[0]) == ["picture", "class_1", "score_1"]
    assert len(rows) == 8
    for row, (path, ranked) in zip(rows, expected, strict=True):
        assert (row["picture"], row["class_1"]) == (str(path), ranked[0][0])
        assert float(row["score_1"]) == pytest.approx(ranked[0][1], abs=1e-6)
    assert cli.main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"to": str(table), "pictures": 8, "left_out": 0}
    assert sorted(tmp_path.iterdir()) == [tmp_path / "model", table]


@pytest.mark.parametrize("suffix", tables.TABLES)
def test_a_table_is_whole_or_not_there(photos, model, tmp_path, suffix):
    folder = tmp_path / "pictures"
    folder.mkdir()
    table = folder / f"results{suffix}"
    good = (photos / "val" / "red" / "0.png").read_bytes()
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(good)
    (folder / "c.png").write_bytes(good[:60])
    results = evaluation.iter_predict(model, [folder], to=table)
    with pytest.raises(data.BadPicturesError, match="c.png"):
        list(results)
    results = evaluation.iter_predict(model, [folder], to=table)
    next(results)
    assert not table.exists()
    results.close()  # as when the command is stopped
    assert len(list(folder.iterdir())) == 3, "nothing is left"
    list(evaluation.iter_predict(model, [folder / "a.png"], to=table))
    results = evaluation.iter_predict(
        model, [folder / "c.png"], to=table, on_bad=lambda *_: None
    )
    assert len(rows_of(table)) == 1, "the one before, until another is whole"
    assert not list(results) and not rows_of(table)


def test_names_of_any_bytes(tmp_path):
    for suffix in tables.TABLES:
        path = tmp_path / f"x{suffix}"
        name = "caf\u00e9, \udcff\n.png"
        list(tables.written([(name, [("a,b", 0.5)])], path))
        [row] = rows_of(path)
        assert row["picture"] == "caf\u00e9, \\udcff\n.png"
        assert row["class_1"] == "a,b"


def test_a_table_that_cannot_be(photos, model, tmp_path, monkeypatch):
    for to, text in (
        ("x.tsv", r"`to` must be .* in .csv, .jsonl, .parquet.*x.tsv"),
        ("none/x.csv", "folder that exists.*none/x.csv"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=text):
            evaluation.predict(model, [photos], to=tmp_path / to)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"kanets\[parquet\]"):
        evaluation.predict(model, [photos], to=tmp_path / "x.parquet")


@pytest.mark.thorough
@needs_tensorflow
def test_a_bundle_takes_them_all(model, server, video, tmp_path):
    assert cli.main(["export", str(model), "--to", str(tmp_path / "s")]) == 0
    assert Artifact(tmp_path / "s").takes_files
    paths = [f"{server}/red", video]
    expected = evaluation.predict(model, paths)
    found = evaluation.predict(tmp_path / "s", paths)
    for (name, ranked), (other, ours) in zip(found, expected, strict=True):
        assert str(name) == str(other) and ranked[0][0] == ours[0][0]
        assert ranked[0][1] == pytest.approx(ours[0][1], abs=1e-5)


def test_memory_does_not_grow_with_pictures(photos, model, tmp_path):
    """What was answered and what was read are let go."""
    import gc
    import weakref

    alive, most = weakref.WeakSet(), 0

    class Picture(sources.Source):
        def content(self):
            return content

        def pixels(self):
            pixels = super().pixels()
            alive.add(self)
            return pixels

    content = (photos / "val" / "red" / "0.png").read_bytes()
    pictures = evaluation.find_pictures([])
    stream = (Picture(f"{i}", f"{i}") for i in range(200))
    pictures.found = stream
    for _ in evaluation.iter_predict(model, pictures, to=tmp_path / "x.csv"):
        gc.collect(0)
        most = max(most, len(alive))
    assert len(rows_of(tmp_path / "x.csv")) == 200
    assert most <= 2 * 32
