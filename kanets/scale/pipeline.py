"""A pipeline of Apache Beam: shards of pictures in, files of answers out.

A shard is an element. Beam's `RunInference` loads the bundle once a worker and
answers a shard at a time, picture by picture as `kanets predict` does; what
follows writes it before the next is begun, with no step between that would
wait for all of them. So memory is that of one shard's answers, and what is
written stays written.
"""

import json
import logging
from typing import NamedTuple

import apache_beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import (
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.runner import PipelineState

from kanets.evaluation import classification, segmentation
from kanets.evaluation.artifacts import Artifact
from kanets.evaluation.finding import Pictures
from kanets.scale import places

# Beam's own DirectRunner, but for its other half, Prism: a program that it
# downloads at the first run.
RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class Shard(NamedTuple):
    """A stretch of the listing: the lines of these bytes of the file."""

    index: int
    start: int
    size: int


class Answers(NamedTuple):
    """What a bundle says of a shard.

    Attributes:
        index: int, the shard's.
        rows: list of `(picture, [(class name, figure), ...])`; of a segmenter
            with a third item, the bytes of a PNG file.
        bad: list of `(picture, reason)`, those that cannot be read.
    """

    index: int
    rows: list
    bad: list


class BundleHandler(ModelHandler[Shard, Answers, Artifact]):
    """Lets `RunInference` ask an exported bundle about shards of pictures.

    Args:
        path: the bundle, of this machine or of a cloud.
        listing: path of the file with the pictures' paths, a string of JSON a
            line.
        top_k: int, classes per picture.
    """

    def __init__(self, path, listing, top_k):
        super().__init__(min_batch_size=1, max_batch_size=1)
        self.path = path
        self.listing = listing
        self.top_k = top_k

    def load_model(self):
        return load_bundle(self.path)

    def run_inference(self, batch, model, inference_args=None):
        for shard in batch:
            with places.opened(self.listing) as file:
                file.seek(shard.start)
                lines = file.read(shard.size).splitlines()
            pictures = Pictures([places.Opened(json.loads(x)) for x in lines])
            bad = []
            answer = classification.iter_predict
            if model.task.writes:
                answer = segmentation.iter_label_maps
            rows = answer(
                model,
                pictures,
                self.top_k,
                lambda picture, why, bad=bad: bad.append((str(picture), why)),
            )
            rows = [(str(picture), *found) for picture, *found in rows]
            yield Answers(shard.index, rows, bad)


class Write(apache_beam.DoFn):
    """Writes shards: bad pictures first, as the table says it is done.

    Args:
        open_table: function from a path to a context manager that gives a
            function, called with the items of each row; can be pickled.
        to: the folder.
        names: function from a shard's index to the names of its table and of
            its file of bad pictures, which can be pickled.
    """

    def __init__(self, open_table, to, names):
        self.open_table = open_table
        self.to = to
        self.names = names

    def process(self, answers):
        table, bad = (
            places.join(self.to, name) for name in self.names(answers.index)
        )
        if answers.bad:
            with (
                places.whole(bad) as path,
                path.open("w", encoding="utf-8") as file,
            ):
                for picture, reason in answers.bad:
                    line = {"picture": picture, "reason": reason}
                    file.write(json.dumps(line) + "\n")
        elif places.file_systems().exists(bad):  # of one that was cut off
            places.file_systems().delete([bad])
        with places.whole(table) as path, self.open_table(path) as add:
            for row in answers.rows:
                add(*row)
        Metrics.counter("kanets", "answered").inc(len(answers.rows))
        Metrics.counter("kanets", "bad").inc(len(answers.bad))


def load_bundle(path):
    """Loads a bundle that takes picture files.

    Raises:
        ValueError: it is no such bundle.
    """
    with places.as_folder(path) as folder:
        model = Artifact(folder)
    if not model.takes_files:
        raise ValueError(
            "Many pictures are answered by a SavedModel of a classifier or a "
            f"segmenter, as `kanets export` writes it. Received: {str(path)!r}"
        )
    return model


def options_of(flags):
    """Beam's `PipelineOptions` of flags such as `--runner=DataflowRunner`.

    Raises:
        ValueError: a flag that Beam does not know, or what belongs to none.
    """
    options, unknown = PipelineOptions(list(flags)), []
    options.get_all_options(
        add_extra_args_fn=lambda parser: unknown.extend(
            parser.parse_known_args(list(flags))[1]
        ),
        retain_unknown_options=True,  # without a warning
    )
    if unknown:
        raise ValueError(
            "A pattern of pictures must be in quotes, and what follows -- "
            "flags of Apache Beam, as --runner=DataflowRunner. "
            f"Received: {', '.join(unknown[:3])}"
        )
    standard = options.view_as(StandardOptions)
    standard.runner = standard.runner or RUNNER
    return options


def _is_news(record):
    """Whether a warning of Beam's is one: 2.77 says this of any system."""
    return not record.getMessage().startswith("Resource module is not")


def run(shards, handler, write, options):
    """Answers and writes shards, and returns when all are written.

    Args:
        shards: list of `Shard`.
        handler: a `BundleHandler`.
        write: a `Write`.
        options: of `options_of`.

    Raises:
        RuntimeError: the job ended otherwise.
    """
    pipeline = apache_beam.Pipeline(options=options)
    _ = (
        pipeline
        | "Shards" >> apache_beam.Create(shards)
        | "Spread" >> apache_beam.Reshuffle()
        | "Answer" >> RunInference(handler)
        | "Write" >> apache_beam.ParDo(write)
    )
    root = logging.getLogger()
    root.addFilter(_is_news)
    try:
        state = pipeline.run().wait_until_finish()
    finally:
        root.removeFilter(_is_news)
    if state not in (None, PipelineState.DONE):
        raise RuntimeError(
            "The job must end as done; what is written stays, and the same "
            f"command continues. Received: {state} of Apache Beam"
        )
