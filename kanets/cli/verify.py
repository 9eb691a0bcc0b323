"""`kanets verify`."""

from typing import Annotated

from typer import Argument, Option

from kanets.cli.options import ImageSize
from kanets.cli.running import command


@command("verify runs/mine.litert --model runs/mine --data photos/val")
def verify(
    artifact: Annotated[
        str, Argument(help="SavedModel, or folder that export wrote.")
    ],
    *,
    model: Annotated[str, Option(help="Zoo name, run, model folder.")],
    data: Annotated[
        str | None, Option(help="Folder of pictures; not of a generator.")
    ] = None,
    count: Annotated[int, Option(help="Pictures at most.")] = 200,
    image_size: ImageSize = None,
    threads: Annotated[int, Option(help="Of the artifact's runtime.")] = 1,
    min_agreement: Annotated[
        float, Option(help="Fail below this share of equal answers.")
    ] = 0.95,
):
    """Compare an export, in its own runtime, with the model."""
    from kanets.evaluation.verify import verify

    report = verify(
        artifact,
        model,
        data,
        count=count,
        threads=threads,
        image_size=image_size,
    )
    difference, peak = report["greatest_difference"], report["peak_mib"]
    yield (
        report,
        (
            f"{report['artifact']} ({report['runtime']}): "
            f"{report['inputs']} inputs, agreement {report['agreement']:.4f}, "
            + ("" if difference is None else f"difference {difference:.2g}, ")
            + f"{report['bytes'] / 1e6:.2f} MB, "
            f"{report['latency_ms']:.2f} ms ({report['threads']} threads)"
            + ("" if peak is None else f", {peak:.0f} MiB")
        ),
    )
    if report["agreement"] < min_agreement:
        raise ValueError(
            f"The artifact must agree with the model on at least "
            f"{min_agreement} of the inputs (--min-agreement). "
            f"Received: {report['agreement']:.4f}"
        )
