"""What an exported model makes of pictures, against the Keras model.

The artifact runs in a process of its own, `kanets.export.runtimes` as a
program, where neither Keras nor this package can be imported. Picture files,
batch by batch, go to it and to the Keras model.
"""

from kanets import tasks, zoo
from kanets.checks import positive_integer
from kanets.evaluation.comparisons import Latents, Pictures
from kanets.evaluation.files import is_keras
from kanets.evaluation.process import Process
from kanets.export import runtimes
from kanets.files import LABELS
from kanets.progress import progress

_BATCH = 16  # rows at a time, here and there


def verify(
    artifact,
    model,
    pictures=None,
    *,
    count=200,
    threads=1,
    rounds=30,
    image_size=None,
    from_logits=None,
):
    """Compares an exported model with the Keras model it was made from.

    Both see the same pictures, or, of a generator, the same latents and
    classes in turn, drawn from a fixed seed. Nothing is judged here: the
    report says how far they agree, and how fast the artifact is.

    Args:
        artifact: path of an exported model, as `runtimes.find` takes. Its
            inputs are `image_bytes`, files; or `images` (B, H, W, 3) float32,
            pixels 0..255, fitted to its size by the rules of
            `kanets.data.pictures`; or `z`, maybe with `label`.
        model: what `kanets.load_model` takes, or a Keras model.
        pictures: a picture file, a folder, or a sequence of them; of a
            segmenter's folder of data, `images/` is taken. Needed for
            everything but a generator, which takes none.
        count: positive int, the most pictures, taken evenly from all of them;
            for a generator, how many latents.
        threads: positive int, for the artifact.
        rounds: positive int, calls that are timed.
        image_size: pair of int, the size that a SavedModel was exported with,
            of a classifier that leaves it open.
        from_logits: bool, whether the Keras model's outputs need a softmax to
            be probabilities. Defaults to what its last activation says.

    Returns:
        A dict:

        - `artifact`: its path as given, str;
        - `format`, `runtime`: of `runtimes.load`, str;
        - `inputs`: how many pictures or latents were compared;
        - `greatest_difference`: float, the largest distance between two
          scores (0..1) or, of a generator, two pixel values (-1..1); inf if
          there is a NaN; None for an artifact that returns no scores;
        - `agreement`: float 0..1. Classifier: the share of pictures with the
          same best class (with one output: on the same side of 0.5).
          Segmenter: the share of pixels with the same class. Generator: the
          share of 8-bit values that differ by at most one level;
        - `bytes`: size of the artifact's files without labels.txt;
        - `latency_ms`: float, median of a call with one row (as many as a
          fixed batch has), after a warm-up;
        - `threads`: as given;
        - `peak_mib`: float, the most memory that the artifact's process held,
          its runtime included, with up to 16 pictures at a time; None where
          the system does not tell.

    Raises:
        FileNotFoundError: no such artifact, or no such picture.
        RuntimeError: the artifact's process failed; the message is its own,
            in one line, be it a missing package or a failed call.
        ValueError: an argument does not fit; the artifact does not take what
            the model takes or return what it returns; a file that cannot be
            read, or is no JPEG or PNG where the artifact takes files.

    Cost: memory for 16 pictures and their scores at a time; they pass
    through a temporary folder, of which nothing is left.
    """
    count = positive_integer("`count`", count)
    threads = positive_integer("`threads`", threads)
    rounds = positive_integer("`rounds`", rounds)
    _, path = runtimes.find(artifact)
    if not is_keras(model):
        model = zoo.load_model(model)
    compare = _comparison(model, pictures, count, image_size, from_logits)
    command = [str(artifact), "--threads", str(threads)]
    with Process([*command, "--rounds", str(rounds)]) as process:
        compare.check(process.about, artifact)
        with progress(compare.count, "comparing") as advance:
            for start in range(0, compare.count, _BATCH):
                rows = slice(start, start + _BATCH)
                results = process.run(compare.feeds(rows))
                compare.add(rows, results)
                advance(min(_BATCH, compare.count - start))
        cost = process.finish()
    return {
        "artifact": str(artifact),
        "format": process.about["format"],
        "runtime": process.about["runtime"],
        "inputs": compare.count,
        "greatest_difference": compare.tally.difference,
        "agreement": compare.tally.agreement,
        "bytes": _size(path),
        "latency_ms": cost["latency_ms"],
        "threads": threads,
        "peak_mib": cost["peak_mib"],
    }


def _comparison(model, pictures, count, image_size, from_logits):
    task = tasks.of_model(model)
    if not task.takes_pictures:
        if pictures is not None:
            raise ValueError(
                f"A {task.model} takes no pictures. "
                f"Received: pictures={pictures!r}, model={model.name!r}"
            )
        return Latents(model, count)
    if pictures is None:
        raise ValueError(
            "`pictures` must be given for a model that takes pictures. "
            f"Received: pictures=None, model={model.name!r}"
        )
    return Pictures(model, pictures, count, image_size, from_logits)


def _size(path):
    """Bytes of an artifact's files without labels; `path` is of `find`."""
    files = [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
    elif path.suffix == ".xml":
        files.append(path.with_suffix(".bin"))
    return sum(file.stat().st_size for file in files if file.name != LABELS)
