"""Curves of what was measured; needs matplotlib (`kanets[viz]`)."""

import csv
from pathlib import Path


def plot_curves(logs, path, column="val_accuracy"):
    """Draws one column of several runs' logs over the epochs, as a PNG.

    Args:
        logs: dict from a label to the `log.csv` of a run.
        path: the PNG to write.
        column: a column of the logs; epochs without a value are left out.

    Returns:
        `Path` of the picture.

    Raises:
        ValueError: a log has no such column; its columns are named.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for label, log in logs.items():
        with Path(log).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or column not in rows[0]:
            raise ValueError(
                f"The log must have a column {column!r}. Received: "
                f"{str(log)!r} with {list(rows[0]) if rows else []}"
            )
        points = [(int(r["epoch"]), r[column]) for r in rows if r[column]]
        epochs = [epoch for epoch, _ in points]
        axes.plot(
            epochs, [float(v) for _, v in points], "o-", ms=3, label=label
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel(column.replace("_", " "))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return Path(path)
