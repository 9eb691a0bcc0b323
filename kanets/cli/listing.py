"""`kanets list` and `kanets info`: what there is in the zoo."""

import dataclasses
from typing import Annotated

from typer import Argument, Option

from kanets.cli.running import command


@command("list 'kanet_qkv*'")
def list_models(
    pattern: Annotated[str, Argument(help="Of names, as of files.")] = "*",
    *,
    task: Annotated[
        str | None,
        Option(help="classification, segmentation or generation."),
    ] = None,
    hub: Annotated[
        bool,
        Option(
            "--hub",
            help="Published weights that nets of ours read, by the net's name "
            "or their own; no network is asked.",
        ),
    ] = False,
    attention: Annotated[
        bool,
        Option("--attention", help="Mechanisms, by what `attention=` takes."),
    ] = False,
):
    """The models of the zoo."""
    if attention:
        yield from _mechanisms(pattern, task, hub)
        return
    from kanets import zoo

    models = (zoo.list_hub if hub else zoo.list_models)(pattern, task=task)
    text = models if models else f"There is no model that {pattern!r} names."
    yield [dataclasses.asdict(model) for model in models], text


def _mechanisms(pattern, task, hub):
    import fnmatch
    import inspect

    from kanets.attention import MECHANISMS

    if task is not None or hub:
        raise ValueError(
            "Mechanisms are of no task and of no hub. Received: "
            f"task={task!r}, hub={hub}"
        )
    names = fnmatch.filter(MECHANISMS, pattern)
    if not names:
        yield [], f"There is no mechanism that {pattern!r} names."
        return
    found, lines = [], []
    for name in names:
        mechanism = MECHANISMS[name]
        what = inspect.getdoc(mechanism.layer).partition("\n")[0]
        given = mechanism.arguments
        found.append({"name": name, "is": what, **given})
        arguments = "".join(f" {key}={given[key]!r}" for key in given)
        lines.append(f"{name:24}{what}{arguments}")
    yield found, "\n".join(lines)


@command("info kanet_lite0_imagenet")
def info(
    model: Annotated[str, Argument(help="An entry's name.")],
):
    """Everything that is known of an entry, its figure's command included."""
    from kanets import zoo

    found = [entry for entry in zoo.list_models() if entry.name == model]
    if not found:
        names = [entry.name for entry in zoo.list_models()]
        raise ValueError(
            f"A model must be an entry: {names}. Received: model={model!r}"
        )
    [entry] = found
    fields = dataclasses.asdict(entry)
    lines = [f"{name:18}{_text(part)}" for name, part in fields.items() if part]
    yield fields, "\n".join(lines)


def _text(value):
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
