"""What went wrong in another process, without Ray's wrapping, short enough for a message."""

from __future__ import annotations

from ray.exceptions import RayError, RayTaskError

from rlaif.errors import describe_error, quote_error


def cause_of(error: BaseException) -> BaseException:
    """The exception that was raised in the other process."""
    return error.cause if isinstance(error, RayTaskError) and error.cause is not None else error


def death_of(error: RayError) -> str:
    """Why an actor died, in one line: the exception that it raised, or what Ray knows of its process."""
    if isinstance(error, RayTaskError):
        return describe_error(cause_of(error))
    lines = [line.strip() for line in str(error).splitlines() if line and not line.startswith("\t")]
    return " ".join(lines[1:] or lines)


def describe_cause(error: BaseException) -> str:
    """The type and the whole message of what was raised in the other process, or why that process died."""
    cause = cause_of(error)
    return death_of(cause) if isinstance(cause, RayError) else quote_error(cause)
