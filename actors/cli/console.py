"""What the command line writes to."""

from __future__ import annotations

import sys

from rich.console import Console

#: Into a file or pipe, tables keep their columns whole whatever the 80 that is assumed there.
console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, soft_wrap=True)
