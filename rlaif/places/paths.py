"""What a path names on this machine. A path may come from anywhere: what can be no name of a file names nothing."""

from __future__ import annotations

import stat
from pathlib import Path


def file_mode(path: str | Path) -> int:
    """0 where there is nothing, and for what can be no name of a file: one that is too long, or has a NUL."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):
        return 0


def is_directory(path: str | Path) -> bool:
    return stat.S_ISDIR(file_mode(path))


def is_file(path: str | Path) -> bool:
    return stat.S_ISREG(file_mode(path))
