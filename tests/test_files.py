"""Files that are written whole or not at all, and the lock of a folder."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kanets import files

# The module alone: importing the package takes seconds.
LOAD = f"import runpy; files = runpy.run_path({files.__file__!r})\n"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_folder(path, text, **options):
    with files.whole(path, **options) as fresh:
        fresh.mkdir()
        (fresh / "a").write_text(text)


def test_a_text_is_replaced(tmp_path):
    files.write_text(tmp_path / "a.csv", "first")
    files.write_text(tmp_path / "a.csv", "zweité")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "zweité"
    assert names(tmp_path) == ["a.csv"]


def test_labels(tmp_path):
    files.write_labels(tmp_path, [])
    assert names(tmp_path) == [] and files.read_labels(tmp_path) is None
    labels = ("bée", "wasp\u2028nest", "")
    files.write_labels(tmp_path, labels)
    assert files.read_labels(tmp_path) == labels
    (tmp_path / files.LABELS).write_bytes(b"\xef\xbb\xbfant\r\nbee")
    assert files.read_labels(tmp_path) == ("ant", "bee")
    (tmp_path / files.LABELS).write_bytes(b"ant\n\xe9")
    with pytest.raises(ValueError, match="UTF-8.*labels.txt', where line 2"):
        files.read_labels(tmp_path)


def test_a_folder_is_replaced(tmp_path):
    write_folder(tmp_path / "best", "first")
    write_folder(tmp_path / "best", "second")
    assert (tmp_path / "best" / "a").read_text() == "second"
    assert names(tmp_path) == ["best"]


def test_the_temporary_file_keeps_the_suffixes(tmp_path):
    with files.whole(tmp_path / "last.weights.h5") as fresh:
        assert fresh.name.startswith(".tmp-last-")
        assert fresh.name.endswith(".weights.h5")
        fresh.touch()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("write", [Path.mkdir, Path.touch])
def test_what_fails_leaves_what_was(tmp_path, error, write):
    write_folder(tmp_path / "x", "before")
    with pytest.raises(type(error)):
        with files.whole(tmp_path / "x") as fresh:
            write(fresh)
            raise error
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x" / "a").read_text() == "before"


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    files.write_text(path, "before")
    said = "log.csv' could not be written, and is as it was before: No space"
    with pytest.raises(OSError, match=said) as caught:
        with files.whole(path) as fresh:
            fresh.touch()
            raise OSError(errno.ENOSPC, "h5py says it at length")
    assert caught.value.errno == errno.ENOSPC
    assert "Make room" in str(caught.value) and "length" not in str(caught)
    # Some writers raise what they like, and some see it only when it is late.
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        full = usage._replace(free=1000)
        patch.setattr(shutil, "disk_usage", lambda _: full)
        with pytest.raises(OSError, match=said):
            with files.whole(path):
                raise RuntimeError("basic_ios::clear")
        with pytest.raises(OSError, match=said):
            with files.whole(path, size=1001):
                pytest.fail("begun without room")
        with files.whole(path, size=1000) as fresh:
            fresh.write_text("after")
        # A file system that does not tell is not taken for a full one.
        patch.setattr(shutil, "disk_usage", lambda _: type(usage)(0, 0, 0))
        with files.whole(path, size=10**15) as fresh:
            fresh.write_text("after")
    assert path.read_text() == "after" and names(tmp_path) == ["log.csv"]


def test_no_parent_is_named(tmp_path):
    with pytest.raises(OSError, match="none/a' could not be .*No such file"):
        files.write_text(tmp_path / "none" / "a", "")


def test_what_is_there_may_be_kept(tmp_path):
    write_folder(tmp_path / "1", "first", replace=False)
    with pytest.raises(FileExistsError):
        write_folder(tmp_path / "1", "second", replace=False)
    assert (tmp_path / "1" / "a").read_text() == "first"
    assert names(tmp_path) == ["1"]


def test_a_folder_that_cannot_be_moved_is_put_back(tmp_path, monkeypatch):
    write_folder(tmp_path / "x", "before")
    original = Path.rename

    def rename(self, target):
        if self.name.startswith(".tmp-"):
            raise OSError("moved away")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="moved away"):
        write_folder(tmp_path / "x", "after")
    assert (tmp_path / "x" / "a").read_text() == "before"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("write", [files.write_text, write_folder])
def test_many_write_at_once(tmp_path, write):
    failures = []

    def often(text):
        try:
            for _ in range(40):
                write(tmp_path / "x", text)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=often, args=[t]) for t in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert names(tmp_path) == ["x"]
    path = tmp_path / "x"
    assert (path / "a" if path.is_dir() else path).read_text() in "abcd"


def test_a_locked_folder_names_its_holder(tmp_path):
    said = f"in use by process {os.getpid()} on .* Received: '{tmp_path}'"
    with files.locked(tmp_path):
        for _ in range(2):
            with pytest.raises(BlockingIOError, match=said):
                with files.locked(tmp_path):
                    pytest.fail("locked twice")
    with pytest.raises(KeyboardInterrupt):
        with files.locked(tmp_path):
            raise KeyboardInterrupt
    with files.locked(tmp_path):
        pass
    assert names(tmp_path) == []


def test_what_killed_processes_left_locks_nothing(tmp_path):
    code = LOAD + "import sys, time\n"
    code += f"with files['locked']({str(tmp_path)!r}):\n"
    code += "    print('locked', flush=True); time.sleep(100)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(BlockingIOError, match=f"by process {process.pid} on"):
        with files.locked(tmp_path):
            pytest.fail("locked twice")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (tmp_path / ".tmp-last-0a.weights.h5").touch()
    (tmp_path / ".tmp-best-0a").mkdir()
    (tmp_path / ".best.0a.old").mkdir()
    (tmp_path / ".best.0a.old" / "only").touch()
    (tmp_path / "log.csv").touch()
    (tmp_path / ".log.csv.0b.old").touch()
    with files.locked(tmp_path):
        assert names(tmp_path) == [".lock", "best", "log.csv"]
    assert names(tmp_path / "best") == ["only"]


def test_where_there_are_no_locks_nothing_is_locked(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(files, "_lock_file", refuse)
    with files.locked(tmp_path):
        with files.locked(tmp_path):
            pass
    with files.locked(tmp_path / "none"):
        pass
    assert names(tmp_path) == []


def test_one_at_a_time_has_the_lock(tmp_path):
    inside, most, turns = [], [], []

    def often():
        while len(turns) < 60:
            try:
                with files.locked(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    turns.append(1)
            except BlockingIOError:
                pass

    threads = [threading.Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
