"""What became of a fit that failed: which failures a restart may mend, and the cause as one of our errors."""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.train import UserCallback
from ray.train.v2.api.exceptions import ControllerError, RayTrainError, WorkerGroupError

from actors.cluster.causes import cause_of, death_of, describe_cause
from rlaif.errors import RlaifError, RunError, TrainerLostError

_logger = logging.getLogger(__name__)

#: What a rank raises when another process died or the network broke: the group is started again.
PASSING = (RuntimeError, OSError, RayError)


class FinalFailures(UserCallback):
    """In Ray Train's controller: raises for failures that a restart cannot mend, which ends the fit.

    An error of Ray Train's own says that a rank's process died or is silent; any other was raised by the rank.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if ray.get(self._mailbox.note_failure.remote()):
            raise RunError("the trainer was closed")
        for rank, error in sorted(worker_exceptions.items()):
            if not isinstance(error, RayTrainError) and not is_passing(error):
                raise describe_failure(f"rank {rank}", error)


def is_passing(error: BaseException) -> bool:
    """Whether a rank raised it because something else died, so that a restart may mend it."""
    return isinstance(cause_of(error), PASSING)


def describe_failure(where: str, error: BaseException) -> RlaifError:
    """``error`` as one of ours that says where it came from; a user's mistake keeps its type."""
    cause = cause_of(getattr(error, "health_check_failure", error))
    if isinstance(cause, RlaifError):
        return type(cause)(f"{where}: {cause}")
    return RunError(f"{where}: {describe_cause(cause)}")


def cause_of_failure(name: str, error: BaseException) -> RlaifError:
    """The root of a failed fit: a rank's own error or death, rather than that of a rank that lost touch with it."""
    _logger.debug("%s failed", name, exc_info=error)
    if isinstance(error, RayActorError):
        return TrainerLostError(f"{name}: its controller died: {death_of(error)}")
    if isinstance(error, ControllerError):
        return describe_failure(name, error.controller_failure)
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        failures = sorted(error.worker_failures.items(), key=lambda item: is_passing(item[1]))
        rank, failure = failures[0]
        return describe_failure(f"{name}: rank {rank}", failure)
    return describe_failure(name, error)
