"""Writes `verdict.md`, its picture and the figures that `kanets list` shows.

    python docs/make_verdict.py

Out of `benchmarks/`: `verdict.csv`, `verdict.npz`, `verdict_price.csv` and
`verdict_int8.csv`. Every sentence with a figure in it is made of them. The
figures of mechanisms also go into `kanets/attention/verdict.csv`, for
`kanets list --attention`.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
BENCHMARKS = ROOT / "benchmarks"
SHORT = ROOT / "kanets" / "attention" / "verdict.csv"
RUNTIMES = {
    "litert": "LiteRT",
    "litert_int8": "LiteRT int8",
    "onnx": "ONNX Runtime",
    "savedmodel": "SavedModel",
}
ALLOWED = 1.05  # times what the net without attention takes
CONTROLS = {
    "maps": "1x1, ReLU6, 1x1 at every position, after the block: no looking "
    "around",
    "maps_of_means": "the same two maps of the means of rows and columns, "
    "summed: what Kronecker attention sees, without weights",
    "maps_inside": "1x1, ReLU6, 1x1 at every position, on the expanded "
    "channels: the parameters of `kao_rectified_inside`",
    "dense": "every position looks at every one",
}


def main():
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path[:0] = [str(ROOT), str(BENCHMARKS)]
    from tables import read, write
    from verdict import CONTROLS as CONTROL_FORMS
    from verdict import OURS, TASKS, summary

    rows = [row for row in summary() if row["task"] in TASKS]
    prices = read(BENCHMARKS / "verdict_price.csv")
    int8 = read(BENCHMARKS / "verdict_int8.csv")
    kinds = dict.fromkeys(CONTROL_FORMS, "control")
    kinds |= dict.fromkeys(OURS, "ours")
    table = forms(rows, prices, int8)
    draw(table, kinds, HERE / "verdict.png")
    page = text(table, rows, kinds, TASKS)
    (HERE / "verdict.md").write_text(page, encoding="utf-8")
    write(SHORT, short(table))


def forms(rows, prices, int8):
    """By form: its tasks' figures, its prices by net, its loss in int8."""
    found = {}
    for row in rows:
        form = found.setdefault(
            row["form"], {"tasks": {}, "prices": {}, "int8": {}}
        )
        form["tasks"][row["task"]] = row
    for row in prices:
        if row["form"] in found:
            found[row["form"]]["prices"][row["net"]] = row
    for row in int8:
        if row["form"] in found:
            found[row["form"]]["int8"][row["task"]] = row
    return found


def points(form, tasks=None):
    """The mean difference to "none" over tasks; None where none is known."""
    found = [
        row["difference"]
        for task, row in form["tasks"].items()
        if row["difference"] is not None and (tasks is None or task in tasks)
    ]
    return sum(found) / len(found) if found else None


def ratio(form, runtime, net="pretrained"):
    if net not in form["prices"]:
        return None
    return float(form["prices"][net][f"{runtime}_ratio"])


def pretrained(table):
    """The tasks of the pretrained net, which every form has a row of."""
    tasks = table["none"]["tasks"]
    return [task for task in tasks if task != "scratch"]


def draw(table, kinds, path):
    """Difference against time, a panel a runtime."""
    from matplotlib.figure import Figure

    colours = {"control": "0.45", "ours": "C3", None: "C0"}
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).flat
    tasks = pretrained(table)
    for (runtime, title), axes in zip(RUNTIMES.items(), panels, strict=True):
        axes.axhline(0, color="0.85", zorder=0)
        axes.axvspan(axes.get_xlim()[0], ALLOWED, color="0.96", zorder=0)
        for name, form in table.items():
            x, y = ratio(form, runtime), points(form, tasks)
            if name == "none" or x is None or y is None:
                continue
            colour = colours[kinds.get(name)]
            axes.plot(x, y, "o", color=colour, markersize=5)
            axes.annotate(
                name.replace("_", " "),
                (x, y),
                xytext=(4, 2),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )
        axes.plot(1, 0, "s", color="black", markersize=5)
        axes.set_xscale("log")
        axes.set_title(title)
        axes.set_xlabel("time, over that of the net without")
    for axes in figure.axes[::2]:
        axes.set_ylabel("points, to the net without")
    figure.savefig(path, dpi=110)


def text(table, rows, kinds, tasks):
    seeds = {
        task: table["none"]["tasks"][task]["seeds"]
        for task in table["none"]["tasks"]
    }
    lines = [
        "# Which attention for a compact net?",
        "",
        "Written by `python docs/make_verdict.py`: change that, not this.",
        "",
        "Every mechanism of the family at the same places of the same net, by",
        "one recipe, starting closed, beside controls that do not attend. Only",
        "the mechanism differs, and pictures are the same. Held-out pictures",
        "of the training sets judge; no test set was looked at",
        "([benchmarks/verdict.py](../benchmarks/verdict.py) has the recipe).",
        "",
        *described(seeds, tasks),
        "",
        *answer(table),
        "",
        "![Points against time](verdict.png)",
        "",
        "Grey: controls; red: ours; blue: peers; the square: the net without.",
        "Points are means over "
        + ", ".join(f"`{t}`" for t in pretrained(table))
        + "; time is that of a picture of 224 px on one thread.",
        "",
        "## All figures",
        "",
        "Difference to the net without, in points, with its 95 % interval",
        "(pictures and seeds both resampled; of one seed, pictures alone, and",
        "another seed moves a difference by about half a point). Times are",
        "over those of the net without, of one picture on one thread.",
        "",
        *figures(table, kinds, seeds),
        "",
        "## What the controls are",
        "",
        *(f"- `{name}`: {what}." for name, what in CONTROLS.items()),
        "",
        "## Again",
        "",
        "```bash",
        "python benchmarks/verdict.py run --data data --folder runs/verdict \\",
        "    --tasks cifar10 --forms none kao_rectified_inside --seeds 0",
        "python benchmarks/verdict.py table --folder runs/verdict",
        "python benchmarks/verdict_price.py time --folder runs/verdict",
        "python benchmarks/verdict_price.py int8 --folder runs/verdict "
        "--data data",
        "```",
        "",
        f"{hours(rows)} hours of one core for all trainings so far.",
    ]
    return "\n".join(lines) + "\n"


def described(seeds, tasks):
    """What a task is, and how many seeds it has."""
    for task, count in seeds.items():
        name, body, pictures, epochs = tasks[task]
        net = type(body).__doc__.partition(".")[0].partition(",")[0]
        yield (
            f"- `{task}`: {net}, {pictures:,} pictures of {name}, {epochs} "
            f"epochs, {count} seed{'s' if count > 1 else ''}."
        )


def answer(table):
    """What wins at its price, and what cannot be told apart."""
    tasks = pretrained(table)
    for runtime, title in RUNTIMES.items():
        fits = {
            name: points(form, tasks)
            for name, form in table.items()
            if (ratio(form, runtime) or 9) <= ALLOWED
            and points(form, tasks) is not None
        }
        if not fits:
            continue
        best = sorted(fits, key=fits.get, reverse=True)[:4]
        named = ", ".join(f"`{name}` {fits[name]:+.2f}" for name in best)
        yield f"- **{title}, at most {ALLOWED} of the time**: {named}."
    clear, unclear = [], []
    enough = min(2, len(table["none"]["tasks"]))
    for name, form in table.items():
        if name == "none":
            continue
        intervals = [
            row["interval"]
            for row in form["tasks"].values()
            if row["interval"] is not None
        ]
        above = sum(low > 0 for low, _ in intervals)
        (clear if above >= enough else unclear).append(name)
    yield (
        "- **Above the net without, interval and all, in "
        f"{['', 'the task', 'two tasks or more'][enough]}**: "
        + (", ".join(f"`{n}`" for n in clear) or "none yet")
        + "."
    )
    yield (
        "- **Not to be told from it there, or below**: "
        + (", ".join(f"`{n}`" for n in unclear) or "none")
        + "."
    )


def figures(table, kinds, seeds):
    head = ["form", *(f"{task}" for task in seeds), *RUNTIMES.values()]
    head += ["training", "int8 loss", "parameters"]
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    tasks = pretrained(table)

    def rank(name):
        mean = points(table[name], tasks)
        return -99 if mean is None else mean

    for name in sorted(table, key=rank, reverse=True):
        form = table[name]
        shown = f"**{name}**" if kinds.get(name) == "ours" else name
        cells = [shown + (" (control)" if kinds.get(name) == "control" else "")]
        cells += [cell(form["tasks"].get(task)) for task in seeds]
        cells += [two(ratio(form, runtime)) for runtime in RUNTIMES]
        cells.append(two(ratio(form, "training")))
        cells.append(loss(form["int8"]))
        any_row = next(iter(form["tasks"].values()))
        cells.append(f"{any_row['parameters'] / 1e6:+.2f} M")
        yield "| " + " | ".join(cells) + " |"


def cell(row):
    if row is None:
        return "-"
    if row["difference"] is None:
        return f"{row['accuracy']:.1f} %"
    low, high = row["interval"]
    return f"{row['difference']:+.2f} [{low:+.1f}, {high:+.1f}]"


def two(number):
    return "-" if number is None else f"{number:.2f}"


def loss(rows):
    """Points that int8 takes, the mean over the tasks measured."""
    lost = [
        float(row["litert_accuracy"]) - float(row["litert_int8_accuracy"])
        for row in rows.values()
    ]
    return f"{sum(lost) / len(lost):.2f}" if lost else "-"


def hours(rows):
    from tables import read

    seconds = sum(
        float(row["cpu_seconds_train"]) + float(row["cpu_seconds_held_out"])
        for row in read(BENCHMARKS / "verdict.csv")
    )
    return f"{seconds / 3600:.1f}"


def short(table):
    """A row a mechanism: its better place, its gain and its times there."""
    tasks = pretrained(table)
    found = {}
    for name, form in table.items():
        mean = points(form, tasks)
        mechanism = name.removesuffix("_inside")
        if mean is None or mechanism.startswith("maps"):
            continue
        if mechanism in found and mean <= found[mechanism][0]:
            continue
        place = "after" if mechanism == name else "inside"
        ratios = {f"{r}_ratio": two(ratio(form, r)) for r in RUNTIMES}
        row = {"mechanism": mechanism, "place": place, "points": f"{mean:+.2f}"}
        found[mechanism] = mean, row | ratios
    return [row for _, row in found.values()]


if __name__ == "__main__":
    main()
