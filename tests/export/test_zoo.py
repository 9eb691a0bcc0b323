"""Every entry of the zoo in every format, verified on real pictures."""

import os
from pathlib import Path

import pytest

from kanets import cli, zoo
from tests.backends import BACKEND

FORMATS = {
    "savedmodel": ("float32", "float16", "bfloat16"),
    "litert": ("float32", "float16", "int8"),
    "onnx": (None,),
    "openvino": ("float32", "float16"),
}


@pytest.mark.slow
@pytest.mark.skipif(
    "KANETS_DATA" not in os.environ, reason="KANETS_DATA names no folder"
)
@pytest.mark.skipif(BACKEND != "tensorflow", reason="exporting is TensorFlow's")
@pytest.mark.parametrize("entry", zoo.list_models(), ids=lambda e: e.name)
@pytest.mark.parametrize(
    "format, precision",
    [(name, p) for name, values in FORMATS.items() for p in values],
)
def test_agrees_with_the_model(entry, format, precision, tmp_path, capsys):
    export = ["export", entry.name, "--to", tmp_path / "it", "--format", format]
    verify = ["verify", tmp_path / "it", "--model", entry.name]
    if precision is not None:
        export += ["--precision", precision]
    if entry.task == "generation":
        if precision == "int8":
            pytest.skip("a generator's pictures need finer steps")
    else:
        test = Path(os.environ["KANETS_DATA"], entry.measured_on[0])
        train = test.with_name("train")
        train = train if train.is_dir() else test  # to calibrate int8 with
        verify += ["--data", test, "--count", "50"]
        if precision == "int8":
            export += ["--representative", train]
        if entry.task == "segmentation":
            export += ["--image-size", *entry.input_shape[:2]]
    if precision in ("bfloat16", "int8"):  # both have 8 bits
        verify += ["--min-agreement", "0.85"]
    for command in (export, verify):
        code = cli.main([str(word) for word in command])
        assert code == 0, capsys.readouterr().err
