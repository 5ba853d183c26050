"""What an engine's thread steps: a model that serves many requests at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rlaif.engines.requests import Request
from rlaif.records import FinishReason

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledTokens:
    """A backend's answer to a GenerateRequest. ``logprobs`` [T] belong to ``token_ids`` [T]."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


#: For a GenerateRequest; a ChoiceRequest or a LogprobsRequest; a ScoreRequest.
Result = SampledTokens | tuple[float, ...] | float


class Backend(Protocol):
    """A model that serves many requests at once. Constructed, used and closed in one thread.

    Requests were checked (``requests``) before they are admitted; ``key`` tells them apart.
    """

    prefix_hits: tuple[int, int]  #: prompt tokens found in the prefix cache, and all prompt tokens

    def admit(self, key: int, request: Request) -> None:
        """Accept a request. Raises RequestError when it cannot be served."""
        ...

    def cancel(self, key: int) -> None:
        """Forget an admitted request; nothing is returned for it."""
        ...

    def step(self) -> Sequence[tuple[int, Result]]:
        """Do one round of work; returns the requests that finished, by their keys."""
        ...

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Replace these weights, rounded to the number format in which each is served. Called for one bucket after the
        other; ``step`` is not called before ``finish_loading``."""
        ...

    def finish_loading(self, checksums: Mapping[str, int]) -> None:
        """All weights were replaced: read them back and compare, and drop what was cached under the old ones; running
        requests go on where they were. Raises WeightSyncError, naming what is not served as it was sent."""
        ...

    def close(self) -> None: ...
