"""Tables of the benchmarks, as CSV."""

import csv


def read(path):
    """The rows of a table, dicts of str; none where it is not there."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, rows, columns=None):
    """Writes dicts, a row each, under a line of columns: the first's keys."""
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = columns or list(rows[0])
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def append(path, row):
    """Adds a row, below those that are there."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def append_run(path, row):
    """Adds the row of a run, and by what Keras; what it built is let go."""
    import keras

    by = {"keras": keras.version(), "backend": keras.backend.backend()}
    print(row | by, flush=True)
    append(path, row | by)
    keras.utils.clear_session()


def holds(rows, **case):
    """Whether a row has these figures."""
    return any(
        all(row[key] == str(value) for key, value in case.items())
        for row in rows
    )
