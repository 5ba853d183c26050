"""The one exception tree. Every error is picklable, and its first argument is the whole message for a person.

``UserError`` and its children are a user's mistakes: the CLI prints the message alone and exits with 2.
``RunError`` and its children end a run that was started correctly: exit 1.
"""

from __future__ import annotations


class RlaifError(Exception):
    """Base of everything this system raises on purpose."""


class UserError(RlaifError):
    """A mistake in what the user gave; nothing was lost and nothing was started."""


class ConfigError(UserError):
    """Wrong configuration: all mistakes at once, one ``path=value: rule; fix`` a line."""


class DataError(UserError):
    """A data file that cannot be used, named with its row and field where there is one."""


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


class StorageError(RunError):
    """The run directory cannot be written (full or read-only disk); the run can be resumed."""


class EngineError(RunError):
    """An inference engine failed."""


class RequestError(EngineError):
    """One request that an engine cannot serve (empty, over-long, unknown token); the engine lives on."""


class WeightSyncError(RunError):
    """An engine does not serve the weights that it was given."""


class TrainerLostError(RunError):
    """A whole trainer is gone, by no fault of its own: what it did since its last checkpoint must be done again."""


class WaitTimeoutError(RunError):
    """A bounded wait ran out; names what was waited for."""


class Interrupted(RlaifError):
    """Somebody ended a command, or what it followed; says how to go on. Exit 130."""
