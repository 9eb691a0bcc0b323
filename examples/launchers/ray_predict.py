"""Asks a bundle about pictures by Ray Data.

    python ray_predict.py savedmodels/mine photos answers

On a cluster model, pictures and answers are where all workers find them. The
rows are `picture`, `class`, `score` and, of one that cannot be read, `reason`.
"""

import sys

import pyarrow

from kanets.evaluation.artifacts import Artifact
from kanets.evaluation.classification import iter_predict
from kanets.evaluation.finding import Pictures
from kanets.evaluation.sources import Source, check_size

ACTORS = 1  # each with a copy of the model
SCHEMA = pyarrow.schema(
    [
        ("picture", pyarrow.string()),
        ("class", pyarrow.string()),
        ("score", pyarrow.float32()),
        ("reason", pyarrow.string()),
    ]
)


class Read(Source):
    """A picture file that Ray has read."""

    def __init__(self, path, data):
        super().__init__(path, path)
        self.data = data

    def content(self):
        check_size(len(self.data))
        return self.data


class Answer:
    """What an actor does: loads the bundle once, and answers batches."""

    def __init__(self, model):
        self.model = Artifact(model)

    def __call__(self, table):
        rows = []

        def bad(picture, reason):
            rows.append({"picture": str(picture), "reason": reason})

        files = [Read(row["path"], row["bytes"]) for row in table.to_pylist()]
        for picture, [(name, score)] in iter_predict(
            self.model, Pictures(files), 1, bad
        ):
            row = {"picture": str(picture), "class": name, "score": score}
            rows.append(row)
        return pyarrow.Table.from_pylist(rows, SCHEMA)


def main(model, pictures, to):
    import ray

    ray.data.read_binary_files(pictures, include_paths=True).map_batches(
        Answer,
        fn_constructor_args=[model],
        batch_size=256,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=ACTORS),
    ).write_parquet(to)


if __name__ == "__main__":
    main(*sys.argv[1:])
