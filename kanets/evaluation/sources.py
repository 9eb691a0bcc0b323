"""Pictures that are no files of this machine: of the web, of a pipe, of videos.

Each is a name until it is read. Whoever evaluates asks `pixels` where a model
takes pixels, and `content` where a bundle takes the bytes of files.
"""

import abc
import http.client
import importlib.metadata
import io
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import PurePosixPath

from kanets.data.pictures import PictureError, read_picture

MAX_BYTES = 50_000_000  # of a picture that is fetched or piped
TIMEOUT = 30.0  # seconds for a picture to arrive
SCHEMES = ("http", "https")
_CHUNK = 2**16


class Source(abc.ABC):
    """A picture by its name.

    Args:
        name: what results call it.
        stem: what files about it are called.
    """

    def __init__(self, name, stem):
        self.name = name
        self.stem = stem

    def __str__(self):
        return self.name

    @abc.abstractmethod
    def content(self):
        """The bytes of a picture file.

        Raises:
            PictureError: they cannot be had.
        """

    def pixels(self):
        """Its pixels, uint8 (H, W, 3).

        Raises:
            PictureError: as `content` and `kanets.data.pictures.read_picture`.
        """
        return read_picture(io.BytesIO(self.content()))


class Unreadable(Source):
    """What is known to hold no picture, and why; said when it is read."""

    def __init__(self, path, reason):
        super().__init__(str(path), path.stem)
        self.reason = reason

    def content(self):
        raise PictureError(self.reason)


class StandardInput(Source):
    """One picture file on the standard input."""

    def __init__(self):
        super().__init__("-", "stdin")

    def content(self):
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        check_size(len(data))
        if not data:
            raise PictureError("empty (0 bytes)")
        return data


class Address(Source):
    """A picture of the web, fetched when it is read and kept nowhere.

    Args:
        url: http or https.
    """

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        stem = PurePosixPath(urllib.parse.unquote(parts.path)).stem
        super().__init__(url, stem or parts.hostname or "picture")

    def content(self):
        deadline = time.monotonic() + TIMEOUT
        try:
            return self._fetched(deadline)
        except PictureError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP {error.code} {error.reason}"
        except urllib.error.URLError as error:
            reason = error.reason
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = error
        if isinstance(reason, TimeoutError):
            reason = f"no answer within {TIMEOUT:g} seconds"
        reason = str(reason) or type(reason).__name__
        raise PictureError(f"cannot be fetched: {reason}")

    def _fetched(self, deadline):
        version = importlib.metadata.version("kanets")
        request = urllib.request.Request(
            self.name, headers={"User-Agent": f"kanets/{version}"}
        )
        data = bytearray()
        with _opener().open(request, timeout=TIMEOUT) as answer:
            check_size(int(answer.headers.get("Content-Length") or 0))
            while chunk := answer.read1(_CHUNK):
                data += chunk
                check_size(len(data))
                if time.monotonic() > deadline:
                    raise TimeoutError
            if answer.length:  # `read1` does not tell of an early end
                raise OSError("the answer ended early")
        return bytes(data)


def _opener():
    """Follows redirections, but not out of the web: neither files nor FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def check_size(size):
    """Raises a PictureError for a file of too many bytes."""
    if size > MAX_BYTES:
        raise PictureError(f"too large: the limit is {MAX_BYTES:,} bytes")
