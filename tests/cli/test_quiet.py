"""TensorFlow's news do not reach the user, all else does."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, subprocess, sys
from kanets.cli.quiet import quiet
with quiet():
    os.write(2, b"I0000 00:00:1796010310.8  24228 port.cc:153] oneDNN is on\\n")
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is\\n")
    os.write(2, b"2026-11-30 03:46:01.2: I tensorflow/core/a.cc:2] rebuild\\n")
    os.write(2, b"E0000 00:00:1796.4 24 c.cc:52] failed call to cuInit: no\\n")
    os.write(2, b"E0000 00:00:1796.4 24 c.cc:52] out of memory\\n")
    print("by Python", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'child')"])
print("after", file=sys.stderr)
os.write(2, b"I0000 00:00:1796010310.8  24228 not filtered any more\\n")
"""
SAID = [
    "E0000 00:00:1796.4 24 c.cc:52] out of memory",
    "I0000 00:00:1796010310.8  24228 not filtered any more",
    "after",
    "by Python",
    "child",
]


def test_only_noise_is_left_out():
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True
    )
    text = ran.stderr.replace("childafter", "child\nafter")
    assert sorted(text.splitlines()) == SAID


@pytest.mark.thorough
def test_a_command_says_nothing_that_is_not_its_own(tmp_path):
    (tmp_path / "bee.jpg").touch()
    ran = subprocess.run(
        [sys.executable, "-m", "kanets", "predict", "nothing", "bee.jpg"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    [line] = ran.stderr.splitlines()
    assert line.startswith("kanets: error: No such model") and not ran.stdout
