"""The seams of the system, as Protocols. Whoever reads this file knows what an engine, a pool and a learner owe.

Engines are single-loop objects: their coroutines run on one asyncio loop, many at once, and the engine batches them
(continuous batching). They know tokens, not principles: prompts arrive as token ids, and what is asked of the text
is decided by the tasks (``critique_revision``, ``labelling``, ``sampling``...), which run next to the engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rlaif.jobs import PPOJob, PreferenceJob, RefreshJob, RefreshRows, SFTJob
from rlaif.records import Completion, Sampling, ScoredSample

if TYPE_CHECKING:
    import numpy as np

RowT = TypeVar("RowT", contravariant=True)
RecordT = TypeVar("RecordT", covariant=True)
Row = TypeVar("Row")
Record = TypeVar("Record")


# ---------------------------------------------------------------------------------------------------- engines
@dataclass(frozen=True, kw_only=True)
class Probe:
    """What the learner computed with the new weights, for engines to prove that they serve the same.

    ``token_ids``: sequences of at least two tokens. ``values``: for a language model the log-probability of each
    sequence's last token given the ones before it; for a preference model each sequence's score.
    """

    token_ids: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One version of a model's weights, ready to serve: Hugging Face parameter names, tied heads spelled out."""

    version: int
    tensors: Mapping[str, np.ndarray]
    probe: Probe


class Engine(Protocol):
    """What every engine has."""

    tokenizer: Any  #: transformers.PreTrainedTokenizerFast
    max_length: int  #: prompt and completion together, in tokens
    model_version: str  #: content version of what was loaded, e.g. "sl_cai@3f2a", written into records
    policy_version: int  #: 0 for what was loaded, then ``Weights.version``

    async def update_weights(self, weights: Weights) -> None:
        """Serve ``weights`` from the next request on and prove it against the probe; reset the prefix cache.

        Raises WeightSyncError when names do not cover the model or the probe differs by more than 1e-3 (float32) or
        5e-2 (bfloat16); the engine must not be used afterwards.
        """
        ...

    def prefix_hits(self) -> tuple[int, int]:
        """Prompt tokens found in the prefix cache, and prompt tokens asked for, since the engine was opened."""
        ...

    async def close(self) -> None: ...


class TextGenerator(Engine, Protocol):
    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion. Raises RequestError when the prompt is empty, has an unknown token id, or leaves
        no room for one token; EngineError when the engine is dead."""
        ...


class ChoiceScorer(Engine, Protocol):
    async def choice_logprobs(self, prompt_ids: Sequence[int], choice_ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probability (full vocabulary, temperature 1) of each of ``choice_ids`` as the next token."""
        ...

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion: ...


class SequenceScorer(Engine, Protocol):
    async def score(self, token_ids: Sequence[int]) -> float:
        """The preference score of a whole dialogue, read at its last token (which must be the EOS)."""
        ...


# ------------------------------------------------------------------------------------------------------ pools
class Task(Protocol[RowT, RecordT]):
    """One row's whole conversation with an engine: a frozen, picklable object from ``rlaif``, run next to it.

    A task that raises RlaifError or any other Exception fails its row, never its engine.
    """

    async def __call__(self, engine: Any, row: RowT, /) -> RecordT: ...


@dataclass(frozen=True, kw_only=True)
class Done(Generic[Row, Record]):
    """A row that came back. Exactly one of ``record`` and ``failure`` is set."""

    row: Row
    record: Record | None
    failure: str | None  #: the cause, for quarantine.jsonl


class Pool(Protocol):
    """An elastic group of engines of one role; the one way to run inference."""

    role: str

    def run(self, task: Task[Row, Record], rows: Iterable[Row]) -> AsyncIterator[list[Done[Row, Record]]]:
        """Run ``task`` on every row; each comes back exactly once, in any order, in lists of what came back together.

        ``rows`` is read lazily, with a bounded number in flight (back-pressure). Rows have an ``id`` attribute.
        """
        ...

    async def prefix_hits(self) -> tuple[int, int]:
        """Prompt tokens found in the engines' prefix caches, and prompt tokens asked for, by engines still there."""
        ...

    async def update_weights(self, weights: Weights) -> None:
        """Give every engine the weights and wait until each has proved that it serves them."""
        ...

    async def close(self) -> None: ...


# --------------------------------------------------------------------------------------------------- learners
class PolicyLearner(Protocol):
    """The DeepSpeed ranks that train the policy and its value function."""

    async def learn(self, batch: Sequence[ScoredSample]) -> Learned:
        """One PPO batch: recompute, advantages, ``epochs`` of optimizer steps.

        All its scores come from one version of the preference model. An empty batch advances the version alone."""
        ...

    async def weights(self) -> Any:
        """The current policy as something a Pool's ``update_weights`` accepts (Weights, or a reference to it)."""
        ...

    async def save(self, path: Path) -> None:
        """Write the policy at ``path`` in Hugging Face layout."""
        ...

    async def save_checkpoint(self, path: Path) -> None:
        """Write everything that ``PPOJob.checkpoint`` needs to go on from here."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What became of a batch. ``kl`` and ``advantage_mean`` [B], in the batch's order."""

    version: int
    metrics: Mapping[str, float]
    kl: tuple[float, ...]
    advantage_mean: tuple[float, ...]


class PreferenceLearner(Protocol):
    """The DeepSpeed ranks that stay between refreshes and fit the preference model again."""

    async def learn(self, rows: RefreshRows) -> Refitted:
        """Fit again on these rows; the next version."""
        ...

    async def weights(self) -> Any:
        """The current preference model as something a Pool's ``update_weights`` accepts."""
        ...

    async def save(self, path: Path) -> None:
        """Write the preference model at ``path`` in Hugging Face layout."""
        ...

    async def save_checkpoint(self, path: Path) -> None:
        """The same, and beside it what it takes to go on from here."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """What became of a refresh: mean scores of the frozen probes before and after, and the fit's metrics."""

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

    async def open(self, role: str, model: str) -> Pool:
        """A pool of the configured engine for ``role`` (generator, labeller, scorer) serving ``model``."""
        ...
