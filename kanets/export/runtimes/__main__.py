"""The folder as a program, by its path; see `main` in program.py."""

import importlib.util
import os
import sys

if __package__:  # python -m kanets.export.runtimes
    from .program import main
else:
    # Its path is the first to import from, where onnx.py and openvino.py would
    # stand in for the packages of these names. It becomes a package instead.
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != folder]
    spec = importlib.util.spec_from_file_location(
        "runtimes", os.path.join(folder, "__init__.py")
    )
    runtimes = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = runtimes
    spec.loader.exec_module(runtimes)
    main = runtimes.main

sys.exit(main())
