"""A bar of what is done and the time that is left, on a terminal alone."""

import contextlib
import sys


@contextlib.contextmanager
def progress(total, doing=""):
    """Shows a bar on standard error where that is a terminal.

    Lines that are printed meanwhile stand above it.

    Args:
        total: int, of pictures.
        doing: what is done to them, one word.

    Yields:
        Function of how many of them are done more.
    """
    if not _is_shown():
        yield lambda count: None
        return
    from rich import progress as bars
    from rich.console import Console
    from rich.text import Text

    from kanets.train.display import spoken

    class Left(bars.ProgressColumn):
        def render(self, task):
            left = task.time_remaining
            return Text("" if left is None else f"{spoken(left)} left")

    done = bars.TextColumn(
        f"{doing} {{task.completed:,}} of {{task.total:,}} pictures".lstrip()
    )
    console = Console(stderr=True)
    with bars.Progress(
        done,
        bars.BarColumn(None),
        Left(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # a file or pipe gets its lines
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def _is_shown():
    # With --json, lines go to the terminal itself, and through a bar there.
    lines_pass_by = sys.stdout is sys.stderr and sys.__stdout__.isatty()
    return sys.stderr.isatty() and not lines_pass_by
