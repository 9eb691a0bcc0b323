"""Bundles as clients of TensorFlow Serving see them, over gRPC and REST.

Against the server itself where there is one: `tensorflow_model_server` on the
PATH, or its path in the environment variable KANETS_TF_SERVING. The requests
are the same where there is none: they are then parsed, and answered by
TensorFlow's C library, which the server is built on.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from kanets.export import export_savedmodel, runtimes
from kanets.export.models_config import write_models_config
from tests.backends import BACKEND
from tests.data.test_pictures import jpeg_that_claims
from tests.export.test_savedmodel import (
    NAMES,
    SIZE,
    encode,
    make_model,
    make_picture,
    train_view,
)

SERVER = os.environ.get("KANETS_TF_SERVING") or shutil.which(
    "tensorflow_model_server"
)
pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="exporting needs the TensorFlow backend"
)
needs_server = pytest.mark.skipif(
    SERVER is None,
    reason="needs TensorFlow Serving: put tensorflow_model_server on the "
    "PATH, or set KANETS_TF_SERVING=/path/to/tensorflow_model_server",
)
PATIENCE = 60  # seconds

FILES = [
    encode(make_picture(71, 97, 1), quality=90),
    encode(make_picture(120, 53, 2), "PNG"),
    encode(make_picture(29, 37, 3), quality=95),
]
PIXELS = np.stack([make_picture(*SIZE, seed) for seed in (4, 5)])


def other_model():
    """Of the same classes as `make_model`, with other answers."""
    model = make_model()
    model.layers[-1].bias.assign(np.linspace(-3, 3, len(NAMES)))
    return model


@pytest.fixture(scope="module")
def models():
    return {"insects": make_model(), "moths": other_model()}


@pytest.fixture(scope="module")
def root(models, tmp_path_factory):
    """A folder with two models, each with the version 1."""
    root = tmp_path_factory.mktemp("models")
    for name, model in models.items():
        export_savedmodel(model, root / name, NAMES)
    return root


def expected(model, signature):
    """The probabilities the Keras model gives to FILES or PIXELS."""
    pixels = PIXELS
    if signature == "serving_default":
        pixels = np.stack([train_view(file) for file in FILES])
    return model.predict(pixels.astype("float32"), verbose=0)


def check(outputs, probabilities):
    """Compares outputs of a bundle with what the Keras model gives."""
    # Half a level apart at a few pixels is all that resizing may cost.
    np.testing.assert_allclose(
        outputs["probabilities"], probabilities, atol=1e-3
    )
    order = np.argsort(-outputs["probabilities"], axis=-1)[:, :5]
    names = [[name.decode() for name in row] for row in outputs["classes"]]
    np.testing.assert_array_equal(names, np.array(NAMES)[order])
    np.testing.assert_array_equal(
        outputs["scores"],
        np.take_along_axis(outputs["probabilities"], order, -1),
    )


SIGNATURES = {"serving_default": "image_bytes", "serve_images": "images"}


def inputs_of(signature):
    values = {"serving_default": np.array(FILES, object)}
    return values.get(signature, PIXELS)


def predict_request(model, signature, value):
    """A PredictRequest as a client sends it: serialized."""
    import tensorflow as tf

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    tensor = tf.make_tensor_proto(value)
    request.inputs[SIGNATURES[signature]].CopyFrom(tensor)
    return request.SerializeToString()


def rest_body(signature, value):
    """The body of a request to :predict, row by row."""
    if signature == "serving_default":
        rows = [{"b64": base64.b64encode(file).decode()} for file in value]
    else:
        rows = np.asarray(value).tolist()
    instances = [{SIGNATURES[signature]: row} for row in rows]
    return json.dumps({"signature_name": signature, "instances": instances})


@pytest.mark.parametrize("signature", SIGNATURES)
def test_predict_requests(signature, root, models):
    import tensorflow as tf

    sent = predict_request("insects", signature, inputs_of(signature))
    request = predict_pb2.PredictRequest.FromString(sent)
    bundle = runtimes.load(
        root / request.model_spec.name,
        signature=request.model_spec.signature_name,
    )
    assert set(request.inputs) == set(bundle.inputs)
    feeds = {n: tf.make_ndarray(t) for n, t in request.inputs.items()}
    check(bundle(**feeds), expected(models["insects"], signature))


@pytest.mark.parametrize("signature", SIGNATURES)
def test_rest_requests(signature, root, models):
    """What the server makes of the JSON: rows stacked, `b64` decoded."""
    request = json.loads(rest_body(signature, inputs_of(signature)))
    bundle = runtimes.load(root / "moths", signature=request["signature_name"])
    (name,) = bundle.inputs
    rows = [instance[name] for instance in request["instances"]]
    if signature == "serving_default":
        rows = [base64.b64decode(row["b64"]) for row in rows]
    else:
        rows = np.array(rows, bundle.inputs[name][1])
    check(bundle(**{name: rows}), expected(models["moths"], signature))


def saved_model_cli(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
        + [str(argument) for argument in arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_saved_model_cli(root, models, tmp_path):
    folder = root / "insects" / "1"
    np.save(tmp_path / "files.npy", np.array(FILES))
    np.savez(tmp_path / "pixels.npz", first=PIXELS)
    feeds = {
        "serving_default": f"image_bytes={tmp_path / 'files.npy'}",
        "serve_images": f"images={tmp_path / 'pixels.npz'}[first]",
    }
    processes = [saved_model_cli("show", "--all", "--dir", folder)]
    for signature, feed in feeds.items():
        options = ["--tag_set", "serve", "--signature_def", signature]
        options += ["--inputs", feed, "--outdir", tmp_path / signature]
        processes.append(saved_model_cli("run", "--dir", folder, *options))
    answers = [process.communicate(timeout=PATIENCE) for process in processes]
    for process, (_, err) in zip(processes, answers, strict=True):
        assert process.returncode == 0, err
    shown = answers[0][0]
    for signature, name in SIGNATURES.items():
        assert f"signature_def['{signature}']" in shown
        assert f"inputs['{name}'] tensor_info" in shown
        written = {
            path.stem: np.load(path, allow_pickle=True)
            for path in (tmp_path / signature).iterdir()
        }
        assert set(written) == {"classes", "scores", "probabilities"}
        check(written, expected(models["insects"], signature))
    assert "outputs['probabilities'] tensor_info" in shown
    assert "shape: (-1, 7)" in shown


# What follows needs the server.


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(answer, server):
    """Calls `answer` until it returns something true, and returns that."""
    last = time.monotonic() + PATIENCE
    while True:
        result = answer()
        if result:
            return result
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < last, server.log.read_text()
        time.sleep(0.2)


class Server:
    """A running TensorFlow Serving, and how to ask it."""

    def __init__(self, root, log):
        self.log = log
        rpc, rest = free_port(), free_port()
        config = write_models_config(root, str(root))
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [
                    SERVER,
                    f"--port={rpc}",
                    f"--rest_api_port={rest}",
                    f"--model_config_file={config}",
                    "--file_system_poll_wait_seconds=1",
                ],
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.url = f"http://127.0.0.1:{rest}/v1/models"
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{rpc}", options=[("grpc.enable_http_proxy", 0)]
        )
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({})
        )

    def close(self):
        self.channel.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def predict(self, model, signature, value):
        """Asks over gRPC: the version that answered, and the outputs."""
        import tensorflow as tf

        stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        request = predict_pb2.PredictRequest.FromString(
            predict_request(model, signature, value)
        )
        response = stub.Predict(request, timeout=PATIENCE)
        outputs = {n: tf.make_ndarray(t) for n, t in response.outputs.items()}
        return response.model_spec.version.value, outputs

    def states(self, model):
        """Asks over gRPC for the state of each version."""
        stub = model_service_pb2_grpc.ModelServiceStub(self.channel)
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        response = stub.GetModelStatus(request, timeout=PATIENCE)
        name_of = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            status.version: name_of(status.state)
            for status in response.model_version_status
        }

    def rest(self, path, body=None):
        """Asks over REST; errors of HTTP raise `urllib.error.HTTPError`."""
        data = None if body is None else body.encode()
        url = f"{self.url}/{path}"
        with self._opener.open(url, data, timeout=PATIENCE) as answer:
            return json.load(answer)

    def is_available(self, model):
        with contextlib.suppress(OSError):  # not there yet: refused, or 404
            versions = self.rest(model)["model_version_status"]
            return any(v["state"] == "AVAILABLE" for v in versions)
        return False


@pytest.fixture(scope="module")
def server(root, models, tmp_path_factory):
    server = Server(root, tmp_path_factory.mktemp("server") / "log")
    try:
        for name in models:
            wait_until(lambda name=name: server.is_available(name), server)
        yield server
    finally:
        server.close()


@needs_server
@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("name", ["insects", "moths"])
def test_server_grpc(name, signature, server, models):
    value = inputs_of(signature)
    version, outputs = server.predict(name, signature, value)
    assert version == 1
    check(outputs, expected(models[name], signature))
    assert server.states(name) == {1: "AVAILABLE"}


@needs_server
@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("name", ["insects", "moths"])
def test_server_rest(name, signature, server, models):
    body = rest_body(signature, inputs_of(signature))
    rows = server.rest(f"{name}:predict", body)["predictions"]
    outputs = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    outputs["classes"] = np.char.encode(outputs["classes"], "utf-8")
    # The numbers are written in decimals: compare what was read from them.
    outputs = outputs | {
        key: outputs[key].astype("float32")
        for key in ("scores", "probabilities")
    }
    check(outputs, expected(models[name], signature))


BAD = {
    "an empty file": b"",
    "GIF": b"GIF89a",
    "Invalid JPEG data": FILES[0][:-300],
    "at most 50000000 pixels": jpeg_that_claims(12_000, 12_000),
}


@needs_server
@pytest.mark.parametrize("message", BAD)
def test_server_answers_bad_requests_alone(message, server):
    name, signature = "insects", "serving_default"
    before = server.predict(name, signature, inputs_of(signature))[1]
    bad = np.array([FILES[0], BAD[message]], object)
    with pytest.raises(grpc.RpcError, match=message) as raised:
        server.predict(name, signature, bad)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(urllib.error.HTTPError) as raised:
        server.rest(f"{name}:predict", rest_body(signature, bad))
    with raised.value as error:
        assert error.code == 400
        assert message in json.load(error)["error"]
    after = server.predict(name, signature, inputs_of(signature))[1]
    check(after, before["probabilities"])


@needs_server
def test_server_replays_the_warm_up(server, root, models):
    log = server.log.read_text()
    for name in models:
        path = root / name / "1"
        assert f"Finished reading warmup data for model at {path}" in log
    assert log.count("Number of warmup records read: 2") >= len(models)


@needs_server
def test_server_swaps_versions_while_it_answers(server, root, models):
    name, signature = "insects", "serving_default"
    one = expected(models[name], signature)
    new = other_model()
    two = expected(new, signature)
    assert np.abs(one - two).max() > 0.1
    assert export_savedmodel(new, root / name, NAMES).name == "2"

    def swapped():
        version, outputs = server.predict(name, signature, inputs_of(signature))
        check(outputs, {1: one, 2: two}[version])  # never a failure
        return version == 2

    wait_until(swapped, server)
    wait_until(lambda: server.states(name).get(1) in (None, "END"), server)
    assert server.states(name)[2] == "AVAILABLE"
    assert server.states("moths") == {1: "AVAILABLE"}
