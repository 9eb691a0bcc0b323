"""KServe's model server, over the bundles of a folder."""

import asyncio
import contextlib
import functools
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kanets.serve.bundles import RequestError, bundles

_DISCARDED = 4  # times what is allowed; of a longer request, no more


def serve(
    directory,
    host="127.0.0.1",
    port=8501,
    *,
    threads=2,
    max_bytes=50_000_000,
    poll_seconds=5.0,
    say=print,
):
    """Serves the bundles of a folder, until it is interrupted.

    Requests and answers are those of TensorFlow Serving's REST interface:
    `POST /v1/models/NAME[/versions/N]:predict`, `GET /v1/models/NAME` and
    `/v1/models/NAME/metadata`; KServe adds `/v1/models`, `/v2/health/live`,
    `/v2/health/ready` and, for Prometheus, `/metrics`.

    Args:
        directory: folder of folders of versions, as `export_savedmodel`
            writes them. A new version of a model answers as soon as it is
            loaded; one that was taken away is forgotten.
        host: address to listen on; "0.0.0.0" lets other machines in.
        port: port to listen on, TensorFlow Serving's by default.
        threads: requests that are answered at a time.
        max_bytes: of a request; a longer one gets HTTP 413.
        poll_seconds: between looks for new versions.
        say: function of a line, called when it listens and when a version is
            loaded.

    Raises:
        ValueError: no bundles there, or one without a version that loads.
        ImportError: KServe is not installed.
        OSError: the port is taken.
    """
    found = bundles(Path(directory))
    if not found:
        raise ValueError(
            "A folder to serve must hold folders of exported versions "
            f"(kanets export MODEL --to {directory}/NAME). "
            f"Received: {str(directory)!r}"
        )
    kserve = _kserve()
    _check_free(host, port)
    pool = ThreadPoolExecutor(threads)
    server = kserve.ModelServer(http_port=port, enable_grpc=False)
    for name, bundle in found.items():
        _swap(name, bundle, say)
        if bundle.current is None:
            raise ValueError(
                "A model to serve must have a version that can be loaded. "
                f"Received: {str(bundle.folder)!r} ({bundle.failed})"
            )
        server.register_model(_model(kserve, name, bundle, pool))
    from kserve.model_server import app
    from kserve.protocol.rest.server import RESTServer

    _add_routes(app, kserve, found, pool)
    app.add_middleware(_Limit, max_bytes=max_bytes)
    rest = RESTServer(
        "kserve.model_server:app",
        server.dataplane,
        server.model_repository_extension,
        port,
    )
    rest.config.host = host
    say(f"http://{host}:{port}/v1/models")
    asyncio.run(_run(rest, found, poll_seconds, say))


def _kserve():
    arguments, sys.argv = sys.argv, sys.argv[:1]  # it reads them as its own
    try:
        import kserve
    except ImportError:
        raise ImportError(
            'Serving needs KServe: pip install "kanets[serve]".'
        ) from None
    finally:
        sys.argv = arguments
    return kserve


def _check_free(host, port):
    """Raises an OSError where nobody can listen, before models are loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise OSError(
            f"`port` must be free to listen on. Received: port={port} of "
            f"{host} ({error.strerror})"
        ) from None


async def _run(rest, found, poll_seconds, say):
    polling = asyncio.create_task(_poll(found, poll_seconds, say))
    try:
        await rest.start()
    finally:
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling


async def _poll(found, seconds, say):
    while True:
        await asyncio.sleep(seconds)
        for name, bundle in found.items():
            try:  # in no thread that answers
                await asyncio.to_thread(_swap, name, bundle, say)
            except Exception as error:  # the former version goes on
                say(f"{name}: {error}")


def _swap(name, bundle, say):
    """Lets the newest version of a model answer, and says what is new."""
    before = dict(bundle.failed)
    swapped = bundle.swap()
    for number, error in dict(bundle.failed).items():
        if before.get(number) != error:
            say(f"{name}: version {number} cannot be loaded: {error}")
    if swapped:
        say(f"{name}: version {bundle.current}")


def _model(kserve, name, bundle, pool):
    class Model(kserve.Model):
        async def predict(self, payload, headers=None, response_headers=None):
            return await _answered(kserve, bundle, pool, payload)

    model = Model(name)
    model.ready = True
    return model


async def _answered(kserve, bundle, pool, payload, number=None):
    loop = asyncio.get_running_loop()
    try:
        if isinstance(payload, bytes):  # as curl sends it, not called JSON
            payload = _parsed(payload)
        answer = functools.partial(bundle.answer, payload, number)
        return await loop.run_in_executor(pool, answer)
    except RequestError as error:
        raise kserve.errors.InvalidInput(str(error)) from None


def _parsed(body):
    try:
        return json.loads(body)
    except ValueError:
        raise RequestError("The body must be JSON.") from None


def _add_routes(app, kserve, found, pool):
    """What TensorFlow Serving has and KServe does not: first come, first."""
    from fastapi import HTTPException, Request

    def bundle_of(name):
        if name not in found:
            raise kserve.errors.ModelNotFound(name)
        return found[name]

    @contextlib.contextmanager
    def known(name, version):
        try:
            yield
        except KeyError:
            detail = f"Model {name} has no version {version}."
            raise HTTPException(404, detail) from None

    @app.get("/v1/models/{name}/versions/{version}/metadata")
    @app.get("/v1/models/{name}/metadata")
    def metadata(name: str, version: int | None = None):
        bundle = bundle_of(name)
        with known(name, version):
            signatures = bundle.metadata(version)
        number = bundle.current if version is None else version
        spec = {"name": name, "version": str(number)}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}

    @app.get("/v1/models/{name}")
    def status(name: str):
        bundle = bundle_of(name)
        states = [
            {
                "version": str(number),
                "state": state,
                "status": {
                    "error_code": "UNKNOWN" if error else "OK",
                    "error_message": error,
                },
            }
            for number, (state, error) in bundle.states().items()
        ]
        return {"name": name, "ready": True, "model_version_status": states}

    @app.post("/v1/models/{name}/versions/{version}:predict")
    async def predict(name: str, version: int, request: Request):
        body = await request.body()
        with known(name, version):
            return await _answered(kserve, bundle_of(name), pool, body, version)


class _Limit:
    """Refuses requests that are longer than allowed, and keeps none of them.

    Clients hear it when they have sent their request: a few times what is
    allowed is received, as some take what comes earlier for a lost connection.
    """

    def __init__(self, app, max_bytes):
        self._app = app
        self._most = max_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length")
        chunked = b"transfer-encoding" in headers
        if chunked or int(length or 0) > self._most:
            await self._discard(receive)
            await self._refuse(send, 411 if chunked else 413)
            return
        await self._app(scope, receive, send)

    async def _discard(self, receive):
        left, more = _DISCARDED * self._most, True
        while more and left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            more = message.get("more_body", False)

    async def _refuse(self, send, code):
        text = f"a request must state a length of at most {self._most} bytes"
        body = f'{{"error": "{text}"}}'.encode()
        headers = [(b"content-type", b"application/json")]
        start = {"type": "http.response.start", "status": code}
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": body})
