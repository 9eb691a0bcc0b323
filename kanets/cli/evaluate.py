"""`kanets evaluate`."""

from typing import Annotated, Literal

from typer import Option

from kanets.cli.messages import about_report
from kanets.cli.options import (
    Data,
    Distributed,
    Flip,
    IgnoreLabel,
    ModelOrExport,
    OnError,
    Scales,
    Window,
)
from kanets.cli.running import command


@command("evaluate runs/mine --data photos/val", reads=True, computes=True)
def evaluate(
    model: ModelOrExport,
    *,
    data: Data,
    batch_size: Annotated[int | None, Option(help="Pictures per step.")] = None,
    ignore_label: IgnoreLabel = None,
    extractor: Annotated[
        str | None,
        Option(
            help="Of a generator: the classifier whose features are compared, "
            "inception_v3, or the .pth or .pb file of 2015's Inception "
            "(default kanet_qkv_cifar10)."
        ),
    ] = None,
    resize: Annotated[
        Literal["clean", "legacy_pytorch", "legacy_tensorflow"] | None,
        Option(help="For 2015's Inception (default clean)."),
    ] = None,
    statistics: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="Of a generator: keep the real pictures' statistics here, "
            "for the Frechet distance alone.",
        ),
    ] = None,
    on_error: OnError = "stop",
    distributed: Distributed = False,
    report: Annotated[
        str | None,
        Option(
            metavar="FOLDER", help="Write where it errs: pictures, report.json."
        ),
    ] = None,
    scales: Scales = None,
    flip: Flip = None,
    window: Window = None,
):
    """Measure a model or its export.

    Accuracy of a classifier, mean IoU of a segmenter, Frechet distance of a
    generator.
    """
    from kanets import evaluation, tasks
    from kanets.distribute.processes import is_first

    given = {
        "batch_size": batch_size,
        "ignore_label": ignore_label,
        "extractor": extractor,
        "resize": resize,
        "statistics": statistics,
        "report": report,
        "scales": scales,
        "flip": flip,
        "window": window,
    }
    given = {name: value for name, value in given.items() if value is not None}
    result = evaluation.evaluate(
        model, data, on_error=on_error, distributed=distributed, **given
    )
    if not is_first():
        return
    lines = [tasks.of_result(result).summary(result)]
    if report is not None:
        lines += about_report(result, report)
    yield result, "\n".join(lines)
