"""Tables of the benchmarks, as CSV."""

import csv


def write(path, rows):
    """Writes dicts of the same keys, a row each, under a line of the keys."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
