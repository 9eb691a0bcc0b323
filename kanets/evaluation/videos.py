"""Frames of a video file, read by OpenCV, one after the other."""

import io
import math

from PIL import Image

from kanets.data.pictures import PictureError
from kanets.evaluation.sources import Source, Unreadable

VIDEOS = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .ogv".split()
)
_HAIR = 1e-6  # seconds, as 0.1 + 0.2 is not 0.3


class Frame(Source):
    """A frame, called by its second: `film.mp4#t=2.000`, as in a browser."""

    def __init__(self, path, seconds, pixels):
        super().__init__(
            f"{path}#t={seconds:.3f}", f"{path.stem}_{seconds:08.3f}"
        )
        self._pixels = pixels

    def pixels(self):
        return self._pixels

    def content(self):
        file = io.BytesIO()
        Image.fromarray(self._pixels).save(file, "PNG", compress_level=1)
        return file.getvalue()


class Video:
    """The frames of a video, of which one is in memory at a time.

    Iterated, it gives the first `Frame` of each stretch of `every` seconds;
    of a file without frames, one `Unreadable`.

    Args:
        path: `pathlib.Path` of the file.
        every: positive float, seconds.
    """

    def __init__(self, path, every):
        self.path = path
        self.stem = path.stem
        self.every = every

    def __len__(self):
        """How many frames it will be, by what the file says of itself."""
        try:
            cv2 = _opencv()
        except PictureError:
            return 1
        capture = cv2.VideoCapture(str(self.path))
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        rate = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        if not (0 < rate < math.inf and 0 < frames < math.inf):
            return 1
        return 1 + int((frames - 1) / rate / self.every)

    def __iter__(self):
        found = False
        try:
            for frame in self._frames():
                found = True
                yield frame
        except PictureError as error:
            yield Unreadable(self.path, str(error))
        else:
            if not found:
                yield Unreadable(self.path, "damaged: no frame of a video")

    def _frames(self):
        cv2 = _opencv()
        capture = cv2.VideoCapture(str(self.path))
        try:
            due = 0  # in units of `every`
            while capture.grab():
                seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                passed = (seconds + _HAIR) // self.every
                if passed < due:
                    continue
                whole, pixels = capture.retrieve()
                if not whole:
                    continue
                due = passed + 1
                pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
                yield Frame(self.path, seconds, pixels)
        finally:
            capture.release()


def _opencv():
    try:
        import cv2
    except ImportError:
        raise PictureError(
            'videos are read by pip install "kanets[video]"'
        ) from None
    return cv2
