"""What the command line writes to."""

from __future__ import annotations

import sys

from rich.console import Console

#: Brackets are text, as in a path: nothing is marked up.
#: Into a file or pipe, tables keep their columns whole whatever the 80 that is assumed there.
console = Console(markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, markup=False, soft_wrap=True)
