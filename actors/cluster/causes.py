"""What went wrong in another process, without Ray's wrapping, short enough for a message."""

from __future__ import annotations

from ray.exceptions import RayError, RayTaskError


def cause_of(error: BaseException) -> BaseException:
    """The exception that was raised in the other process."""
    return error.cause if isinstance(error, RayTaskError) and error.cause is not None else error


def one_line(error: BaseException) -> str:
    """The type and first line of an error: what a quarantined row says of its cause."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def death_of(error: RayError) -> str:
    """Why an actor died, in one line: the exception that it raised, or what Ray knows of its process."""
    if isinstance(error, RayTaskError):
        return one_line(cause_of(error))
    lines = [line.strip() for line in str(error).splitlines() if line and not line.startswith("\t")]
    return " ".join(lines[1:] or lines)
