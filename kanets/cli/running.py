"""What all commands have: options, reports, errors in one line, exit codes."""

import contextlib
import functools
import importlib.metadata
import inspect
import json
import math
import os
import select
import sys
import traceback
from typing import Annotated

import typer

from kanets.cli.messages import one_line, with_flags
from kanets.cli.progress import progress
from kanets.cli.quiet import quiet
from kanets.progress import shown_by

app = typer.Typer(
    help="Train, evaluate and export vision models of efficient attention.",
    epilog="example: kanets demo",
    no_args_is_help=True,
    rich_markup_mode=None,  # a page that fits, in a pipe and on any terminal
)

Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Report in JSON, one value a line.")
]
Workers = Annotated[
    int | None, typer.Option(help="Threads that read pictures.")
]
Device = Annotated[
    str | None,
    typer.Option(help="Where to compute, as cpu or gpu:1."),
]


def main(arguments=None):
    """Runs the command line.

    Args:
        arguments: list of strings; default those of the process.

    Returns:
        The exit code: 0 done, 1 failed (one line on standard error says
        why), 130 stopped by the user, 141 if who reads the output has left.
        Misuse exits the process with 2, `--help` with 0.
    """
    codes = []
    if hasattr(sys.stdout, "reconfigure"):  # a name that it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        program()(arguments, prog_name="kanets", obj=codes)
    except SystemExit:
        if not codes:
            raise
    return codes[0]


@functools.cache
def program():
    """The command line, as a group of commands of click."""
    return typer.main.get_command(app)


def _print_version(asked):
    if asked:
        print(f"kanets {importlib.metadata.version('kanets')}")
        raise typer.Exit


@app.callback()
def _options_of_all(
    debug: Debug = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show it and exit.", callback=_print_version
        ),
    ] = False,
):
    pass


def command(
    example,
    *,
    when_stopped="",
    of_recipe=False,
    reads=False,
    computes=False,
    trains=False,
):
    """Makes a function a command of `kanets`, called as its example is.

    A function that yields reports: pairs of a value for `--json`, which it
    gets by this, and of the text that is printed otherwise.

    Args:
        example: what to type after `kanets`; its first word is the name.
        when_stopped: what to say when the user stopped it.
        of_recipe: whether an option that is not given stands in the recipe,
            so that errors call it as the recipe does.
        reads: whether it reads pictures, by as many threads as the user says.
        computes: whether it does so by a net, on the device the user says.
        trains: whether it trains one, on TensorFlow by oneDNN's kernels.

    Returns:
        A decorator that returns the function itself.
    """

    def decorate(function):
        run = functools.partial(_run, function, when_stopped, of_recipe)

        def callback(**given):
            if trains:
                _prefer_onednn()
            run(**given)

        callback.__signature__ = _signature(function, reads, computes)
        app.command(
            example.split()[0],
            help=inspect.getdoc(function),
            epilog=f"\b\nexample: kanets {example}",
        )(callback)
        return function

    return decorate


def _signature(function, reads, computes):
    """What a command is called with: its arguments, and those of `_run`."""
    keyword = functools.partial(
        inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY
    )
    parameters = [*inspect.signature(function).parameters.values()]
    if reads:
        parameters.append(keyword("workers", default=None, annotation=Workers))
    if computes:
        parameters.append(keyword("device", default=None, annotation=Device))
    if inspect.isgeneratorfunction(function):
        parameters.append(keyword("as_json", default=False, annotation=Json))
    parameters.append(keyword("debug", default=False, annotation=Debug))
    parameters.append(keyword("context", annotation=typer.Context))
    return inspect.Signature(parameters)


def _prefer_onednn():
    """Has TensorFlow train by oneDNN's kernels, unless the user says not.

    Of its own accord it leaves them off where a CPU has no AVX-512, and a
    step takes a fifth to a half longer (benchmarks/onednn.py). For commands
    that only predict they stay as they are: one picture can take far longer.
    """
    if "tensorflow" not in sys.modules:  # which reads it as it is loaded
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def _run(
    function,
    stopped,
    of_recipe,
    *,
    context,
    debug,
    as_json=False,
    workers=None,
    device=None,
    **given,
):
    """Calls a command and leaves its exit code to `main`."""
    debug = debug or context.parent.params["debug"]
    try:
        with contextlib.ExitStack() as stack:
            if not debug:
                stack.enter_context(quiet())
            stack.enter_context(shown_by(progress))
            if workers is not None:
                from kanets.data.threads import reading_with

                stack.enter_context(reading_with(workers))
            if device is not None:
                from kanets.distribute.devices import on_device

                stack.enter_context(on_device(device))
            _report(function(**given), as_json)
        code = 0
    except KeyboardInterrupt:
        print(f"kanets: stopped.{stopped}", file=sys.stderr)
        code = 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            code = 141  # 128 + SIGPIPE, as of any program in a pipe
        else:
            code = 1
            _complain(error, debug, _flags(context, of_recipe))
    context.obj.append(code)


def _report(reports, as_json):
    """Prints what a command reports, as it comes."""
    if reports is None:
        sys.stdout.flush()
        return
    out = sys.stdout
    # With --json nothing else is on standard output, as Keras's progress.
    other = contextlib.redirect_stdout(sys.stderr)
    with other if as_json else contextlib.nullcontext():
        for value, text in reports:
            if as_json:
                print(to_json(value), file=out, flush=True)
            else:
                print(text, flush=True)


def to_json(value):
    """A line of JSON; what is no number there (NaN, infinite) is null."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value):
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):  # of NumPy
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)  # a path


def _complain(error, debug, flags):
    if debug:
        traceback.print_exception(error)
        return
    message = with_flags(one_line(error) or type(error).__name__, flags)
    print(f"kanets: error: {message}", file=sys.stderr)


def _flags(context, of_recipe):
    """The options of a command, by the names of Python's arguments."""
    options = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.param_type_name == "option"
        and (not of_recipe or context.params.get(parameter.name) is not None)
    }
    for name in ("as_json", "debug", "help"):
        options.pop(name, None)
    return options


def _reader_has_left():
    """Whether it is standard output that broke; if so, no one hears of it."""
    try:
        output = sys.stdout.fileno()
        poll = select.poll()
    except (AttributeError, OSError):  # no poll there; no file
        return False
    poll.register(output, 0)  # for errors, which are always told
    if not poll.poll(0):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)
    os.close(nowhere)
    return True
