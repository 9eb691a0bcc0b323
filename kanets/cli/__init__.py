"""The `kanets` command: a thin face on the functions of the package.

A file a command, or a family of them. What is heavy is imported inside the
commands, so that `kanets --help` and the completion of a shell are instant.
"""

import importlib

from kanets.cli.running import main

__all__ = ["main"]

# In the order of `kanets --help`.
for _name in (
    *("train", "finetune", "evaluate", "predict", "predict_many", "export"),
    *("verify", "models_config", "push", "generate", "invert", "pack"),
    *("listing", "app", "serve", "doctor", "demo"),
):
    importlib.import_module(f"{__name__}.{_name}")
