"""Are our exports of the compact nets as quick as those of timm's own?

    pip install -e ".[litert,onnx,openvino,hub]" timm==1.0.31 torch
    python benchmarks/compact_exports.py [NET ...]

Forty minutes, one thread. The same random weights in timm's net, which
`torch.onnx` exports and OpenVINO reads from there, and in ours, which
`kanets.create_model(NET, weights=...)` reads from timm's `safetensors` and
`kanets.export_onnx`, `export_openvino` and `export_litert` export. Both sides
take scaled pictures of 224 x 224 in the layout that is theirs (ours channels
last) and end in a softmax. Their turns alternate in one process. Writes
`compact_exports.csv`, a row of a net, a runtime and a batch, after each:

    ours, theirs    milliseconds of a call, medians
    ratio           of the two
    difference      the largest of two log-probabilities, over the largest of
                    them, from ONNX Runtime's run of timm's; not of int8, of
                    which random weights say nothing
    outside         nodes that LiteRT's delegate XNNPACK does not compute
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Worker, environment, machine, serve, take_turns
from tables import read, write

HERE = Path(__file__).parent
TABLE = HERE / "compact_exports.csv"
SIZE, BATCHES, SECONDS = 224, (1, 32), 6.0
NETS = (
    "efficientnet_lite0",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium",
    "mobilenetv4_hybrid_medium",
    "efficientvit_b0",
    "efficientvit_b1",
    "shvit_s1",
    "shvit_s2",
)
TIMM_NAMES = {"efficientnet_lite0": "tf_efficientnet_lite0"}  # others alike
# Of each runtime, our file and theirs.
RUNTIMES = {
    "onnx": ("onnx/model.onnx", "theirs/model.onnx"),
    "openvino": ("openvino/model.xml", "theirs/model.xml"),
    "litert": ("float32_{batch}/model.tflite", None),
    "litert_int8": ("int8_{batch}/model.tflite", None),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--make", type=Path)
    parser.add_argument("--theirs", action="store_true")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    if arguments.make is not None:
        make = make_theirs if arguments.theirs else make_ours
        return make(arguments.nets[0], arguments.make)
    rows = {key(row): row for row in read(TABLE)}
    worker = Worker(__file__, {"OMP_NUM_THREADS": "1"}, seconds=600)
    for net in arguments.nets:
        with tempfile.TemporaryDirectory(prefix="kanets-") as folder:
            for side in ("--theirs", "--ours"):
                command = [sys.executable, __file__, net, "--make", folder]
                subprocess.run(
                    [*command, *([side] if side == "--theirs" else [])],
                    env=environment({"KERAS_BACKEND": "tensorflow"}),
                    check=True,
                )
            found = measured(net, Path(folder), worker, arguments.seconds)
            for row in found:
                print(*row.values(), flush=True)
                rows[key(row)] = row
                write(TABLE, list(rows.values()))
    worker.close()
    print(machine("timm", "torch", "onnxruntime", "openvino", "ai-edge-litert"))


def key(row):
    return row["net"], row["runtime"], str(row["batch"])


def make_theirs(net, folder):
    """`theirs.safetensors`, and what `torch.onnx` makes of the same."""
    import safetensors.torch
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(TIMM_NAMES.get(net, net)).eval()
    with torch.no_grad():
        for values in model.state_dict().values():
            if values.ndim == 1:  # no branch is closed, no statistics alike
                values += 0.2 * torch.rand_like(values)
        # Logits of some units, so that no probability is 0.
        x = torch.tensor(pictures(2).transpose(0, 3, 1, 2))
        last = [v for v in model.state_dict().values() if v.ndim == 2][-1]
        last *= 5 / model(x).abs().max()
    safetensors.torch.save_model(model, str(folder / "theirs.safetensors"))
    (folder / "theirs").mkdir()
    torch.onnx.export(
        torch.nn.Sequential(model, torch.nn.Softmax(-1)),
        (torch.zeros(2, 3, SIZE, SIZE),),
        str(folder / "theirs" / "model.onnx"),
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_axes={"images": {0: "batch"}, "probabilities": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    import openvino

    converted = openvino.convert_model(folder / "theirs" / "model.onnx")
    openvino.save_model(
        converted,
        folder / "theirs" / "model.xml",
        compress_to_fp16=False,
    )


def make_ours(net, folder):
    import kanets

    model = kanets.create_model(
        net,
        weights=folder / "theirs.safetensors",
        input_shape=(SIZE, SIZE, 3),
        include_preprocessing=False,
        classifier_activation=None,
    )
    model.class_names = [f"class {i}" for i in range(model.output_shape[-1])]
    kanets.export_onnx(model, folder / "onnx")
    kanets.export_openvino(model, folder / "openvino")
    for batch in BATCHES:
        for precision in ("float32", "int8"):
            kanets.export_litert(
                model,
                folder / f"{precision}_{batch}",
                precision=precision,
                representative=pictures(64) if precision == "int8" else None,
                batch_size=batch,
            )


def measured(net, folder, worker, seconds):
    """A row a runtime and batch."""
    from kanets.export import runtimes

    x = pictures(2)
    truth = ran(runtimes.load(folder / "theirs" / "model.onnx"), x, True)
    for runtime, (ours, theirs) in RUNTIMES.items():
        for batch in BATCHES:
            path = folder / ours.format(batch=batch)
            sides = {"ours": (path, False)}
            if theirs is not None:
                sides["theirs"] = folder / theirs, True
            cases = {
                side: (worker, {"path": f"{p}", "batch": batch, "first": first})
                for side, (p, first) in sides.items()
            }
            taken = {
                side: figures["milliseconds"] or figures["note"]
                for side, figures in take_turns(cases, seconds, 6).items()
            }
            row = {"net": net, "runtime": runtime, "batch": batch}
            row |= {"ours": "", "theirs": "", **taken, "ratio": ""}
            if theirs is not None:
                ratio = float(row["ours"]) / float(row["theirs"])
                row["ratio"] = f"{ratio:.3f}"
            row["difference"] = ""
            if runtime != "litert_int8":
                found = ran(runtimes.load(path), x)
                row["difference"] = f"{difference(found, truth):.1e}"
            row["outside"] = outside(path) if "litert" in runtime else ""
            yield row


def pictures(batch):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 4, (batch, SIZE, SIZE, 3)).astype("float32")


def ran(model, x, first=False):
    """Log-probabilities; `first` is channels first."""
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x
    return np.log(model(images=x)["probabilities"])


def difference(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def outside(path):
    """How many nodes LiteRT's delegate leaves to LiteRT.

    What is inside of a delegate's node has no values to be read.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()
    nodes = interpreter._get_ops_details()
    given = {
        tensor
        for node in nodes
        if node["op_name"] == "DELEGATE"
        for tensor in node["outputs"]
    }
    return sum(
        _readable(interpreter, tensor)
        for node in nodes
        for tensor in set(node["outputs"]) - given
    )


def _readable(interpreter, tensor):
    try:
        interpreter.get_tensor(tensor)
    except ValueError:
        return False
    return True


def prepare(path, batch, first):
    from kanets.export import runtimes

    model, x = runtimes.load(path), pictures(batch)
    if first:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return lambda: model(images=x)


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        serve(prepare)
    else:
        main()
