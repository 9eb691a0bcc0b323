"""`python -m kanets.cli` is the `kanets` command."""

import sys

from kanets.cli import main

sys.exit(main())
