"""`kanets predict-many`: each picture once, whatever happens in between."""

import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kanets
from kanets import cli, evaluation, files
from kanets.evaluation import tables
from kanets.scale import jobs, places
from tests.backends import needs_tensorflow
from tests.evaluation.test_classification import NAMES
from tests.evaluation.test_segmentation import by_colour as segmenter
from tests.evaluation.test_sources import rows_of
from tests.photos import write_streets
from tests.scale.bundles import write_bundle

apache_beam = pytest.importorskip(
    "apache_beam", reason="make test-beam has Apache Beam"
)
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = [
    needs_tensorflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Beam
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PATIENCE = 300  # seconds, for a machine that does other work


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A bundle, and ten good pictures with two bad ones between them."""
    room = write_bundle(tmp_path_factory.mktemp("room"), "photos")
    good = room / "photos" / "val" / "blue" / "0.png"
    bad = room / "photos" / "val" / "blue"
    (bad / "1b.png").write_bytes(good.read_bytes()[:50])
    (bad / "2b.png").write_bytes(b"")
    return room


def ask(room, to, **options):
    options = {"shard_size": 3, "top_k": 1, "format": "jsonl", **options}
    return jobs.predict_many(
        room / "served" / "mine",
        str(room / "photos" / "val" / "**.png"),
        to,
        **options,
    )


def answers(folder):
    """The rows of all shards, in order."""
    return [
        row for part in sorted(folder.glob("part-*")) for row in rows_of(part)
    ]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("format", jobs.FORMATS)
def test_each_picture_is_answered_once(room, tmp_path, format):
    manifest = ask(room, tmp_path / "out", format=format)
    assert manifest == json.loads(
        (tmp_path / "out" / "manifest.json").read_text()
    )
    counted = {k: manifest[k] for k in ("pictures", "answered", "bad")}
    assert counted == {"pictures": 12, "answered": 10, "bad": 2}
    assert sorted(content(tmp_path / "out")) == [
        "bad-00000-of-00004.jsonl",
        "bad-00001-of-00004.jsonl",
        *("job.json", "listing.jsonl", "manifest.json"),
        *(f"part-0000{i}-of-00004.{format}" for i in range(4)),
    ]
    bad = []
    expected = evaluation.iter_predict(
        room / "served" / "mine",
        [room / "photos" / "val"],
        on_bad=lambda path, why: bad.append((str(path), why)),
    )
    rows = answers(tmp_path / "out")
    for row, (path, ranked) in zip(rows, expected, strict=True):
        assert (row["picture"], row["class_1"]) == (str(path), ranked[0][0])
        assert float(row["score_1"]) == pytest.approx(ranked[0][1], abs=1e-5)
    lines = [
        json.loads(line)
        for path in sorted((tmp_path / "out").glob("bad-*"))
        for line in path.read_text().splitlines()
    ]
    assert [(line["picture"], line["reason"]) for line in lines] == bad
    assert bad[1][1] == "empty file (0 bytes)"


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_a_shard_of_bad_pictures_has_the_columns_of_others(
    room, tmp_path, format
):
    blue, bad = room / "photos" / "val" / "blue", tmp_path / "photos"
    bad.mkdir()
    for name in ("0.png", "1b.png"):
        (bad / name).symlink_to(blue / name)
    jobs.predict_many(
        room / "served" / "mine",
        bad,
        tmp_path / "out",
        **{"shard_size": 1, "format": format},
    )
    good, empty = sorted((tmp_path / "out").glob("part-*"))
    if format == "csv":
        heads = [part.read_text().splitlines()[0] for part in (good, empty)]
    else:
        heads = [parquet.read_schema(part) for part in (good, empty)]
    assert heads[0] == heads[1] and "score_2" in str(heads[0])
    assert len(rows_of(good)) == 1 and not rows_of(empty)


@pytest.fixture(scope="module")
def street_room(room):
    """A segmenter's bundle, and pictures, one of which is cut short."""
    kanets.export_savedmodel(segmenter((8, 12)), room / "segmenter", NAMES)
    write_streets(room / "streets", 1, 4, (10, 12))
    pictures = room / "streets" / "val" / "images"
    cut = next(pictures.iterdir()).read_bytes()[:50]
    (pictures / "x.png").write_bytes(cut)
    return room


def ask_segmenter(room, to, **options):
    options = {"shard_size": 3, "top_k": 5, **options}
    pictures = room / "streets" / "val" / "images"
    return jobs.predict_many(room / "segmenter", pictures, to, **options)


def test_label_maps_are_written_with_their_shares(street_room, tmp_path):
    manifest = ask_segmenter(street_room, tmp_path / "out")
    counted = [manifest[k] for k in ("pictures", "answered", "bad", "shards")]
    assert counted == [5, 4, 1, 2]
    rows = [
        row
        for part in sorted((tmp_path / "out").glob("part-*"))
        for row in parquet.read_table(part).to_pylist()
    ]
    # Those of `kanets predict`.
    expected = evaluation.iter_predict(
        street_room / "segmenter",
        sorted((street_room / "streets" / "val" / "images").glob("[0-9]*")),
        to=tmp_path / "one",
    )
    for row, (path, ranked) in zip(rows, expected, strict=True):
        labels = Image.open(io.BytesIO(row.pop("label_map")))
        other = Image.open(tmp_path / "one" / f"{path.stem}_labels.png")
        found = np.array(labels)
        np.testing.assert_array_equal(found, np.array(other))
        assert found.shape == (8, 12)
        cells = [str(path), *sum(ranked, ())]
        filled = [cell for cell in row.values() if cell is not None]
        assert filled == pytest.approx(cells, abs=1e-6)
        share = np.mean(found == NAMES.index(row["class_1"]))
        assert row["score_1"] == pytest.approx(share, abs=1e-6)
    assert {row["class_1"] for row in rows} == set(NAMES)
    # A shard that is there stays, and one that is not becomes the same.
    before = content(tmp_path / "out")
    (tmp_path / "out" / "part-00000-of-00002.parquet").unlink()
    (tmp_path / "out" / "manifest.json").unlink()
    ask_segmenter(street_room, tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_a_row_of_fewer_classes_has_empty_cells(tmp_path):
    path = tmp_path / "part.parquet"
    with tables.open_label_maps(path, width=2) as add:
        add("a", [("red", 1.0)], b"png")
    [row] = parquet.read_table(path).to_pylist()
    assert list(row.values()) == ["a", "red", 1.0, None, None, b"png"]
    with tables.open_label_maps(path, width=2) as add:
        pass
    assert parquet.read_table(path).column_names == list(row)


def test_label_maps_are_parquet(street_room, tmp_path):
    with pytest.raises(ValueError, match="to Parquet. Received: format='csv'"):
        ask_segmenter(street_room, tmp_path / "out", format="csv")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_done_again(room, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    ask(room, whole)
    expected = content(whole)
    # A job that was killed: no manifest, a shard without its answers, one
    # with neither, and what it had begun to write.
    broken = tmp_path / "broken"
    ask(room, broken)
    for name in (
        *("manifest.json", "part-00001-of-00004.jsonl"),
        *("part-00000-of-00004.jsonl", "bad-00000-of-00004.jsonl"),
    ):
        (broken / name).unlink()
    (broken / ".tmp-part-00000-of-00004.jsonl-0").write_text("half")
    # What was bad at an attempt that was cut off, and is not any more.
    (broken / "part-00003-of-00004.jsonl").unlink()
    stale = '{"picture": "x.png", "reason": "read error"}\n'
    (broken / "bad-00003-of-00004.jsonl").write_text(stale)
    kept = (broken / "part-00002-of-00004.jsonl").stat()
    ask(room, broken)
    assert content(broken) == expected
    assert (broken / "part-00002-of-00004.jsonl").stat() == kept
    # Nothing is left: no model is asked.
    monkeypatch.setattr(
        "kanets.scale.pipeline.run", lambda *_: pytest.fail("asked")
    )
    assert ask(room, broken)["answered"] == 10
    assert content(broken) == expected


def test_a_folder_is_of_one_job(room, tmp_path):
    ask(room, tmp_path)
    before = content(tmp_path)
    for options, text in (
        ({"top_k": 2}, "with another top_k"),
        ({"shard_size": 4}, "with another shard_size"),
        ({"format": "csv"}, "with another format"),
    ):
        with pytest.raises(ValueError, match=f"one job: .*{text}$"):
            ask(room, tmp_path, **options)
    with pytest.raises(ValueError, match="another pictures, listing_sha256$"):
        jobs.predict_many(
            room / "served" / "mine",
            room / "photos" / "val" / "red",
            tmp_path,
            **{"shard_size": 3, "top_k": 1, "format": "jsonl"},
        )
    assert content(tmp_path) == before
    with files.locked(tmp_path):
        with pytest.raises(BlockingIOError, match="in use by process"):
            ask(room, tmp_path)


@pytest.mark.parametrize("format", jobs.FORMATS)
def test_what_is_cut_short_is_named_and_made_again(room, tmp_path, format):
    ask(room, tmp_path, format=format)
    whole = content(tmp_path)
    part = tmp_path / f"part-00002-of-00004.{format}"
    for size in (0, 10):
        part.write_bytes(part.read_bytes()[:size])
        text = r"part-00002-of-00004\S+ with -?\d answered and 0 bad of 3$"
        with pytest.raises(RuntimeError, match=text):
            ask(room, tmp_path, format=format)
        part.unlink()
        ask(room, tmp_path, format=format)
        assert content(tmp_path) == whole
    (tmp_path / "job.json").write_text("")
    with pytest.raises(ValueError, match=r"remove this file .*job\.json"):
        ask(room, tmp_path, format=format)


def test_a_name_of_two_lines_is_a_row(room, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a\nb.png", "c\rd.png"):
        blue = room / "photos" / "val" / "blue" / "0.png"
        (photos / name).write_bytes(blue.read_bytes())
    served = room / "served" / "mine"
    manifest = jobs.predict_many(served, photos, tmp_path / "o", format="csv")
    assert manifest["answered"] == 2


def test_a_full_disk_leaves_no_half(room, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(places.shutil, "copyfileobj", fail)
        with pytest.raises(OSError, match="No space left"):
            ask(room, tmp_path)
    assert not [name for name in content(tmp_path) if name[0] != "."]
    assert ask(room, tmp_path)["answered"] == 10


KILLED = """
import os, sys
from kanets import cli
from kanets.scale import places
rename, left = places.file_systems().rename, int(sys.argv.pop(1))
def counted(sources, targets):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    rename(sources, targets)
places.file_systems().rename = counted
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.thorough
def test_a_killed_job_continues(room, tmp_path):
    ask(room, tmp_path / "whole")
    to = tmp_path / "killed"
    command = ["predict-many", str(room / "served" / "mine")]
    command += [str(room / "photos" / "val" / "**.png"), "--to", str(to)]
    command += ["--shard-size", "3", "--top-k", "1", "--format", "jsonl"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # After the listing, and job; again; after one more shard, of bad ones.
    for renames in (4, 3):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(renames), *command],
            timeout=PATIENCE,
            env=environment,
        )
        assert done.returncode == -signal.SIGKILL
        assert not (to / "manifest.json").exists()
    assert 1 <= len(list(to.glob("part-*"))) < 4
    assert cli.main(command) == 0
    assert content(to) == content(tmp_path / "whole")


def test_the_command(room, tmp_path, capsys):
    served = room / "served" / "mine"
    command = ["predict-many", str(served), str(room / "photos" / "val")]
    to = ["--to", str(tmp_path / "out"), "--shard-size", "7"]
    flags = ["--", "--runner=DirectRunner", "--flow=3"]
    assert cli.main([*command, *to, *flags]) == 1
    assert "Received: --flow=3\n" in capsys.readouterr().err
    # As a shell gives a pattern without quotes.
    assert cli.main([*command, "a.png", "b.png", *to]) == 1
    assert "in quotes, and what follows -- flags" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main([*command, *to, "--", "--direct_num_workers=1"]) == 0
    out = f"{tmp_path / 'out'}: 10 of 12 pictures answered, 2 bad, 2 files\n"
    assert capsys.readouterr() == (out, "")
    assert rows_of(tmp_path / "out" / "part-00000-of-00002.parquet")
    assert cli.main([*command, *to, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top_k"] == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pictures": "{room}/none/*.jpg"}, "in quotes. Received: .*none"),
        ({"model": "{room}/none"}, "exported version .*none"),
        ({"model": "{room}/gan"}, "a classifier or a segmenter, .*gan"),
        ({"format": "xml"}, "`format` must .* format='xml'"),
        ({"top_k": 0}, "`top_k` must .* top_k=0"),
        ({"shard_size": 1.5}, "`shard_size` must .* shard_size=1.5"),
    ],
)
def test_what_cannot_be_is_said_before_it_begins(room, tmp_path, options, text):
    if not (room / "gan").exists():
        z = keras.Input((4,))
        images = keras.layers.Reshape((2, 2, 3))(keras.layers.Dense(12)(z))
        kanets.export_savedmodel(keras.Model(z, images), room / "gan")
    options = {
        "model": str(room / "served" / "mine"),
        "pictures": str(room / "photos" / "val"),
        **options,
    }
    for name in ("model", "pictures"):
        options[name] = options[name].format(room=room)
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        jobs.predict_many(to=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_bundle_of_a_cloud_is_fetched(room, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "is_here", lambda path: False)
    with places.as_folder(f"{room}/served/mine/1/") as folder:
        assert folder != room / "served" / "mine" / "1"
        digest = places.sha256(folder)
    assert digest == places.sha256(room / "served" / "mine" / "1")
    assert places.names_in(room / "served" / "mine" / "1") >= {"saved_model.pb"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["a[1].png"]),
        ("./*.png", ["a[1].png"]),
        ("a[1].png", ["a[1].png"]),
        ("p/*.png", ["p/0.png", "p/gone.png"]),
        ("p/[0-9].png", ["p/0.png"]),
        ("p/**.png", ["p/0.png", "p/gone.png", "p/link/1.png"]),
        ("p/**/*.png", ["p/0.png", "p/gone.png", "p/link/1.png"]),
        ("none/*.png", []),
    ],
)
def test_a_pattern_names_files(tmp_path, monkeypatch, pattern, names):
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].png", "p/0.png", "q/1.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("p/link").symlink_to("../q")
    Path("p/gone.png").symlink_to("nowhere")
    assert places.found(pattern) == names


def test_the_digest_is_of_linked_folders_too(tmp_path):
    weights = tmp_path / "shared" / "weights"
    weights.parent.mkdir()
    weights.write_text("1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "variables").symlink_to("../shared")
    digest = places.sha256(tmp_path / "model")
    weights.write_text("2")
    assert places.sha256(tmp_path / "model") != digest


def test_workers_get_little():
    from kanets.scale.pipeline import BundleHandler, Write

    handler = BundleHandler("model", "listing", 3)
    opened = jobs.functools.partial(jobs.tables.open_label_maps, width=3)
    write = Write(opened, "to", jobs.functools.partial(jobs._names, 4, "csv"))
    assert len(pickle.dumps((handler, write))) < 1000


def test_flags_of_the_page_are_known_to_beam():
    from kanets.scale.pipeline import RUNNER, options_of

    page = Path(__file__).parents[2] / "docs" / "predict-many.md"
    flags = re.findall(r"--\w+=\S+", page.read_text(encoding="utf-8"))
    assert len(flags) > 10
    for flag in flags:
        name, value = flag[2:].split("=", 1)
        assert options_of([flag]).get_all_options()[name] == value
    assert options_of([]).get_all_options()["runner"] == RUNNER


def test_without_beam(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"kanets\[beam\]"):
        jobs.predict_many("x", "y", tmp_path)
