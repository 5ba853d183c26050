"""What the command line writes to: everything that it prints goes through here.

Texts come from models, files and other machines. Characters that a terminal obeys instead of showing them are written
out, and secrets are left out.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.segment import Segment

from rlaif.errors import redacted

#: C0 but for tab and line feed, DEL, C1; marks that reorder text; line separators; halves of characters.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """``text`` as any terminal shows it: ``\\x1b`` for an escape. Line feeds and tabs stay."""
    return OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


class PlainConsole(Console):
    """A console that prints text as text."""

    def print(self, *objects: Any, **settings: Any) -> None:
        texts = (redacted(shown(text)) if isinstance(text, str) else text for text in objects)
        super().print(*texts, **settings)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        # What rich itself says to a terminal, such as how to move the cursor, is in segments of their own.
        return super()._render_buffer(
            segment if segment.control else Segment(shown(segment.text), segment.style) for segment in buffer
        )


#: Brackets and names of emoji are text, as in a path: nothing is marked up.
#: Into a file or pipe, tables keep their columns whole whatever the 80 that is assumed there.
console = PlainConsole(markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
errors = PlainConsole(stderr=True, markup=False, emoji=False, soft_wrap=True)


def take_over(arguments: Sequence[str]) -> None:
    """Let what Python and typer print by themselves go through here, too: uncaught errors, warnings of loggers, and
    messages about ``arguments``."""
    sys.excepthook = _print_traceback
    logging.lastResort = _ToConsole(logging.WARNING)
    if any(map(OBEYED.search, arguments)):
        import typer.rich_utils  # only messages need it, and it is slow to load

        typer.rich_utils.Console = PlainConsole  # type: ignore[misc]


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    errors.print("".join(traceback.format_exception(kind, error, trace)), end="", highlight=False)


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        errors.print(self.format(record), highlight=False)
