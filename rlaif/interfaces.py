"""The seams of the system, as Protocols: what an engine, a pool, a learner and a trainer must provide.

Engines are single-loop objects: their coroutines run on one asyncio loop, many at once, and the engine batches them
(continuous batching). They know tokens, not principles: prompts arrive as token ids, and the tasks
(``rlaif.tasks``), which run next to the engine, decide what is asked of the text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from rlaif.errors import RequestError, describe_error
from rlaif.jobs import PPOJob, PreferenceJob, RefreshJob, RefreshRows, SFTJob
from rlaif.records import Completion, Fault, Sampling, ScoredSample

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerFast

Row = TypeVar("Row")  #: what a pool is given: anything with an ``id``
Record = TypeVar("Record")  #: what a task makes of a row
_TaskRow = TypeVar("_TaskRow", contravariant=True)
_TaskRecord = TypeVar("_TaskRecord", covariant=True)


# ---------------------------------------------------------------------------------------------------- engines
@dataclass(frozen=True, kw_only=True)
class Probe:
    """What the learner computed with new weights, so that engines can prove that they compute the same.

    ``token_ids``: sequences. ``values``: for a language model the log-probabilities (temperature 1) of the last tokens
    of each sequence, as many as there are values, each given all tokens before it; for a preference model one value,
    the sequence's score.
    """

    token_ids: tuple[tuple[int, ...], ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class WeightsHeader:
    """What is known of new weights before they come. ``shapes``: of all tensors, by Hugging Face parameter names, tied
    heads included."""

    version: int
    shapes: Mapping[str, tuple[int, ...]]
    num_buckets: int
    probe: Probe


@dataclass(frozen=True, kw_only=True)
class WeightBucket:
    """Some of the tensors, in the learner's own dtype (bfloat16 as its bits in int16), with the ``checksums`` that the
    learner computed of them (``rlaif.engines.checksums``). Tied tensors are one array under two names."""

    tensors: Mapping[str, np.ndarray]
    checksums: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One version of a model's weights. ``buckets`` may be made one at a time, while they are asked for."""

    header: WeightsHeader
    buckets: Iterable[WeightBucket]

    @property
    def version(self) -> int:
        return self.header.version


class VersionedWeights(Protocol):
    """``Weights``, or a reference to them that the pool can resolve (``actors.cluster.weights``)."""

    @property
    def version(self) -> int: ...


class Engine(Protocol):
    """What every engine has."""

    tokenizer: PreTrainedTokenizerFast
    max_length: int  #: prompt and completion together, in tokens
    model_version: str  #: content version of what was loaded, e.g. "sl_cai@3f2a", written into records
    policy_version: int  #: 0 for what was loaded, then ``Weights.version``

    async def begin_weights(self, header: WeightsHeader) -> None:
        """Stop serving, between two requests or two tokens, until ``serve_weights``; other requests wait.

        Raises WeightSyncError when version, names or shapes are not the model's; the engine then serves as before.
        After any error from here on, it serves nothing more.
        """
        ...

    async def load_weights(self, bucket: WeightBucket) -> None:
        """Replace these tensors. Returns when ``bucket`` is not needed any more."""
        ...

    async def serve_weights(self) -> None:
        """Serve the new weights from the next request on, and prove it: every parameter is read back and has the bits
        that the learner sent, in the number format in which it is served; and what the engine computes for the probe is
        what the learner computed (``rlaif.engines.proof``). What was cached under the old weights is dropped.

        Raises WeightSyncError when tensors are missing, or when the proof fails.
        """
        ...

    def prefix_hits(self) -> tuple[int, int]:
        """Prompt tokens found in the prefix cache, and all prompt tokens, since the engine was opened."""
        ...

    async def close(self) -> None: ...


class TextGenerator(Engine, Protocol):
    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion. Raises RequestError when the prompt is empty, has an unknown token id, or leaves
        no room for one token; EngineError when the engine is dead."""
        ...


class ChoiceScorer(TextGenerator, Protocol):
    async def choice_logprobs(self, prompt_ids: Sequence[int], choice_ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probability (full vocabulary, temperature 1) of each of ``choice_ids`` as the next token.

        Raises NotFiniteError, as all three calls do, when the model computes NaN or infinity."""
        ...


class SequenceScorer(Engine, Protocol):
    async def score(self, token_ids: Sequence[int]) -> float:
        """The preference score of a whole dialogue, read at its last token (which must be the EOS)."""
        ...


class AnyEngine(ChoiceScorer, SequenceScorer, Protocol):
    """What ``open_engine`` returns and a pool hands to its tasks. Calls that the engine's model cannot serve raise
    RequestError: a language model does not score, a preference model does not generate."""


# ------------------------------------------------------------------------------------------------------ pools
class Task(Protocol[_TaskRow, _TaskRecord]):
    """One row's whole conversation with an engine: a frozen, picklable object from ``rlaif.tasks``, run next to it.

    A task may declare the smaller Protocol that it needs, such as ChoiceScorer. An Exception that it raises fails its
    row, never its engine.
    """

    async def __call__(self, engine: AnyEngine, row: _TaskRow, /) -> _TaskRecord: ...


class RecordedTask(Task[_TaskRow, _TaskRecord], Protocol):
    """A task whose records are stored, and kept as long as what they were made of stays the same."""

    def inputs(self, row: _TaskRow, /) -> tuple[object, ...]:
        """All that the record of ``row`` depends on besides the served model, as ``ids.fingerprint`` takes it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a row has no record: the ``cause``, for quarantine.jsonl, and whether it lies in the row."""

    cause: str
    fault: Fault

    @classmethod
    def of(cls, error: Exception) -> Self:
        """A request that the engine cannot serve would fail again; another error comes from outside the row."""
        return cls(cause=describe_error(error), fault="row" if isinstance(error, RequestError) else "outside")


@dataclass(frozen=True, kw_only=True)
class Done(Generic[Row, Record]):
    """A finished row. Exactly one of ``record`` and ``failure`` is set."""

    row: Row
    record: Record | None
    failure: Failure | None


class Pool(Protocol):
    """An elastic group of engines of one role; the one way to run inference."""

    role: str

    def run(self, task: Task[Row, Record], rows: Iterable[Row]) -> AsyncIterator[list[Done[Row, Record]]]:
        """Run ``task`` on every row; each comes back exactly once, in any order, grouped by what finished together.

        ``rows`` is read lazily, with a bounded number in flight (back-pressure). Rows have an ``id`` attribute.
        """
        ...

    async def prefix_hits(self) -> tuple[int, int]:
        """Prompt tokens found in the prefix caches, and all prompt tokens, summed over the engines still alive."""
        ...

    def engine_seconds(self) -> float:
        """Seconds that engines have served since the pool was opened, summed over the engines."""
        ...

    async def update_weights(self, weights: VersionedWeights) -> None:
        """Give every engine the weights and wait until each has proved that it serves them."""
        ...

    async def close(self) -> None: ...


# --------------------------------------------------------------------------------------------------- learners
class PolicyLearner(Protocol):
    """The DeepSpeed ranks that train the policy and its value function."""

    async def learn(self, batch: Sequence[ScoredSample]) -> Learned:
        """One PPO batch: recompute, advantages, ``epochs`` of optimizer steps.

        All its scores come from one version of the preference model. An empty batch only advances the version."""
        ...

    async def weights(self) -> VersionedWeights:
        """The current policy, for a Pool's ``update_weights``."""
        ...

    async def save(self, path: Path) -> None:
        """Write the policy at ``path`` in Hugging Face layout."""
        ...

    async def begin_checkpoint(self, path: Path) -> None:
        """Take down everything that ``PPOJob.checkpoint`` needs to resume from here; it is written at ``path`` while
        learning goes on. One at a time."""
        ...

    async def finish_checkpoint(self) -> None:
        """Return when the checkpoint that was begun is written."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The result of one PPO batch. ``kl`` and ``advantage_mean`` [B], in the order of the batch without ``left_out``:
    the ids of rollouts for which the learner computes NaN or infinity, and of the others of their groups."""

    version: int
    metrics: Mapping[str, float]
    kl: tuple[float, ...]
    advantage_mean: tuple[float, ...]
    left_out: frozenset[str] = frozenset()


class PreferenceLearner(Protocol):
    """The DeepSpeed ranks that stay alive between refreshes and refit the preference model."""

    async def learn(self, rows: RefreshRows) -> Refitted:
        """Refit on these rows; the result is the next version."""
        ...

    async def weights(self) -> VersionedWeights:
        """The current preference model, for a Pool's ``update_weights``."""
        ...

    async def save(self, path: Path) -> None:
        """Write the preference model at ``path`` in Hugging Face layout."""
        ...

    async def begin_checkpoint(self, path: Path) -> None:
        """``save``, plus everything that ``RefreshJob.checkpoint`` needs to resume from here."""
        ...

    async def finish_checkpoint(self) -> None:
        """Return when the checkpoint that was begun is written."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """The result of one refresh: mean scores of the frozen probes before and after, and the fit's metrics."""

    version: int
    metrics: Mapping[str, float]
    probe_mean_before: float
    probe_mean_after: float


class Trainers(Protocol):
    """Where trainers come from: Ray Train in ``actors``, this process in ``rlaif.in_process``."""

    async def supervise(self, job: SFTJob) -> Mapping[str, float]:
        """Run the job to its end; returns its final metrics."""
        ...

    async def fit_preference_model(self, job: PreferenceJob) -> Mapping[str, float]:
        """Run the job to its end; returns its final metrics."""
        ...

    async def policy_learner(self, job: PPOJob) -> PolicyLearner:
        """Start the ranks that train the policy."""
        ...

    async def preference_learner(self, job: RefreshJob) -> PreferenceLearner:
        """Start the ranks that refresh the preference model."""
        ...


class Pools(Protocol):
    """Where pools come from: Ray actors in ``actors``, this process in ``rlaif.in_process``."""

    async def open(self, role: str, model: str, engines: int) -> Pool:
        """A pool of so many of the configured engines for ``role`` (generator, labeller, scorer) serving ``model``."""
        ...
