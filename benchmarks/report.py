"""How do we stand against the best peer, question by question?

    python benchmarks/report.py

Reads the tables of the other scripts of `make bench` and writes the one in
`benchmarks/README.md`, between its two marks: our time over that of the
fastest peer in the same runtime. Below 1 we are faster. A row is a question,
with the least, the middle and the greatest of its cases.
"""

import csv
import statistics
from pathlib import Path

from nets import YARDSTICKS

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- ratios: python benchmarks/report.py -->", "<!-- end -->"
BARE = ("dense", "dense_pool", "dot_product_attention")
SAME_MASK = ("masked", "torch masked", "torch flex")
DENSE = ("dense", "torch dense")


def main():
    found = {}
    for question, case, ours, peers in (
        *kronecker(),
        *ylg_attention(),
        *nets(),
        *training(),
        *startup(),
    ):
        peers = {name: time for name, time in peers.items() if time}
        if ours and peers:
            best = min(peers, key=peers.get)
            cell = f"{case}: {milliseconds(ours)}, {best} "
            cell += milliseconds(peers[best])
            found.setdefault(question, []).append((ours / peers[best], cell))
    lines = [
        "| question | cases | least | middle | greatest |",
        "|---|---|---|---|---|",
    ]
    for question, cases in found.items():
        cases.sort()
        middle = statistics.median(ratio for ratio, _ in cases)
        ends = [
            f"**{factor(ratio)}** ({cell})"
            for ratio, cell in (cases[0], cases[-1])
        ]
        cells = question, str(len(cases)), ends[0], factor(middle), ends[1]
        lines.append(f"| {' | '.join(cells)} |")
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join(lines)
    README.write_text(
        f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8"
    )
    print(table)


def kronecker():
    times = table("kronecker", "contender", "side", "runtime", "pass")
    for side in ("14", "56", "112"):
        for ours in ("kao_qkv", "kao_kv"):
            for where in keys(times, 2):
                yield (
                    f"1. {ours}, {where[1]}",
                    f"{side}², {where[0]}",
                    times.get((ours, side, *where)),
                    {p: times.get((p, side, *where)) for p in BARE},
                )


def ylg_attention():
    times = table("ylg_attention", "contender", "side", "runtime", "pass")
    passes = sorted({key[3] for key in times})
    for side in ("32", "64", "128"):
        for direction in passes:
            for kind, names in (("same mask", SAME_MASK), ("dense", DENSE)):
                found = {
                    f"{name}, {runtime}": time
                    for (name, s, runtime, d), time in times.items()
                    if name in names and (s, d) == (side, direction)
                }
                ours = [
                    time
                    for (name, s, _, d), time in times.items()
                    if name == "sparse" and (s, d) == (side, direction)
                ]
                yield (
                    f"2. YLG against {kind}, each in its fastest runtime",
                    f"{side}², {direction}",
                    min(filter(None, ours), default=None),
                    found,
                )


def nets():
    times = table("nets", "net", "side", "runtime", "batch")
    for ours, peer in YARDSTICKS.items():
        for side, runtime, batch in keys(times, 1):
            where = side, runtime, batch
            yield (
                f"3. {ours}, {side} px",
                f"{runtime}, batch {batch}",
                times.get((ours, *where)),
                {peer: times.get((peer, *where))},
            )


def training():
    times = table("training", "contender")
    for ours, peer in (
        ("KANet", "MobileNetV2"),
        ("KANet, Keras's normalisation", "MobileNetV2"),
        ("KANet, strides of 2", "keras.applications.MobileNetV2"),
        *((f"ylg, {side} px", f"dense, {side} px") for side in (32, 64, 128)),
    ):
        kind = "fit()" if "Net" in peer else "a step of SAGAN"
        yield (
            f"4. {kind}",
            ours,
            times.get((ours,)),
            {peer: times.get((peer,))},
        )


def startup():
    times = table("startup", "net", "part", time="median_s", unit=1e3)
    for part in dict.fromkeys(key[1] for key in times):
        yield (
            "5. start",
            part,
            times.get(("kanets.KANet", part)),
            {
                net: times.get((f"keras.applications.{net}", part))
                for net in ("MobileNetV2", "EfficientNetV2B0")
            },
        )


def table(name, *columns, time="milliseconds", unit=1):
    """Dict from the values of columns to milliseconds, None where none."""
    with (HERE / f"{name}.csv").open(encoding="utf-8") as file:
        return {
            tuple(row[c] for c in columns): unit * float(row[time] or 0) or None
            for row in csv.DictReader(file)
        }


def keys(times, start):
    """The different ends of keys, in order."""
    return dict.fromkeys(key[start:] for key in times)


def factor(value):
    return f"{value:.2f}" if value > 0.1 else f"{value:.2g}"


def milliseconds(time):
    return f"{time:.3g} ms" if time < 1e3 else f"{time / 1e3:.3g} s"


if __name__ == "__main__":
    main()
