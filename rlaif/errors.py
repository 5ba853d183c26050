"""The one exception tree. Every error is picklable, and its first argument is the whole message for a person.

``UserError`` and its children are a user's mistakes: the CLI prints only the message and exits with 2.
``RunError`` and its children end a run that was started correctly: exit 1.
"""

from __future__ import annotations


class RlaifError(Exception):
    """Base of everything this system raises on purpose."""


class UserError(RlaifError):
    """A mistake in the user's input; nothing was lost and nothing was started."""


class ConfigError(UserError):
    """A wrong configuration: every mistake on its own line, ``path=value: rule; fix``."""


class DataError(UserError):
    """A data file that cannot be used; names the row and field where there is one."""


class ModelError(UserError):
    """A model directory that cannot be used."""


class RunDirError(UserError):
    """A run directory of another configuration or a later version, or one that another process uses."""


class PlacementError(UserError):
    """A plan that the declared or actual resources cannot hold; names role and resource."""


class GateError(UserError):
    """Labels that miss the configured quality limits; names each limit and how to override it."""


class RunError(RlaifError):
    """A run that was started correctly and failed."""


class LossError(RunError):
    """No row came out of a step, or fewer than ``max_loss`` allows; names the most frequent cause."""


class StorageError(RunError):
    """The run directory cannot be written (full or read-only disk); the run can be resumed."""


class EngineError(RunError):
    """An inference engine failed."""


class RequestError(EngineError):
    """One request that an engine cannot serve (empty, too long, unknown token); the engine keeps running."""


class NotFiniteError(EngineError):
    """A model computed NaN or infinity where a number was asked for; the engine keeps running."""


class DivergenceError(RunError):
    """A model that is trained computes NaN or infinity; says where, and what to look at."""


class WeightSyncError(RunError):
    """An engine does not serve the weights that it was given."""


class TrainerLostError(RunError):
    """A whole trainer was lost to an outside failure; everything since its last checkpoint must be redone."""


class WaitTimeoutError(RunError):
    """A wait timed out; names what was waited for."""


class Interrupted(RlaifError):
    """The user ended a command, or the job that it followed; says how to continue. Exit 130."""


def describe_error(error: BaseException) -> str:
    """The type and the first line of an error: what a quarantined row says of its cause."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def quote_error(error: BaseException) -> str:
    """The type and the whole message of another library's error, for a message of ours."""
    return f"{type(error).__name__}: {error}"
