"""Writes `command-line.md` out of the commands.

    python docs/make_command_line.py

A section a command: what its `--help` prints.
"""

from pathlib import Path

import click

from kanets.cli.running import program

PAGE = Path(__file__).with_name("command-line.md")
WIDTH = 78
HEAD = """\
# The command line

Written by `python docs/make_command_line.py`: change the commands, not this.
Every command ends with 0 when it is done, with 1 and one line of why when it
failed, with 2 when it was called wrongly, and with 130 when it was stopped.
`--debug` shows the traceback of an error.
"""


def page():
    """The page, as text."""
    commands = program()
    root = click.Context(commands, info_name="kanets", terminal_width=WIDTH)
    parts = [HEAD]
    for name in commands.list_commands(root):
        command = commands.get_command(root, name)
        context = click.Context(
            command, info_name=name, parent=root, terminal_width=WIDTH
        )
        text = command.get_help(context).rstrip()
        parts.append(f"## kanets {name}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
