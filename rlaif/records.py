"""The records that flow from stage to stage: frozen, keyword-only, complete when made.

Ids come from the content of rows (``rlaif.ids``), so that a rerun finds its own wherever they lie; equal rows stay two.
Records that are stored share the columns of ``Provenance``. Log-probabilities are natural logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field

Axis = Literal["red_team", "helpful"]
FinishReason = Literal["stop", "length"]
Probability = Annotated[float, Field(ge=0, le=1)]
Role = Literal["system", "human", "assistant"]  #: a system turn is the first of its conversation
#: Why a row failed: it would fail again as it is, or the cause lies outside it (a model, a template, a timeout).
Fault = Literal["row", "outside"]
#: What an answer does with its request: XSTest's classes (arXiv 2308.01263), and their order wherever there is one.
RefusalClass = Literal["compliance", "partial", "refusal"]
REFUSAL_CLASSES: tuple[RefusalClass, ...] = ("compliance", "partial", "refusal")
SuiteName = Literal["xstest", "strongreject", "simple_safety_tests", "harmbench"]
#: What is wrong with a revision: see ``critique_revision``.
Flaw = Literal[
    "empty",
    "unchanged",
    "leaked_prefix",
    "critique_as_revision",
    "over_long",
    "refused_critique",
    "unfinished_thought",
]

NO_BATCH = -1  #: the batch of rows whose kind does not come in batches


class Status(StrEnum):
    """What became of a row. Only ``OK`` and ``TIE`` ever become numbers in training."""

    OK = "ok"
    TIE = "tie"
    INVALID = "invalid"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    role: Role
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A conversation that ends with a human turn and waits for the assistant."""

    id: str
    source_file: str
    source_row: int
    axis: Axis
    turns: tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SuitePrompt(Prompt):
    """A prompt of a test suite. ``axis``: whether it asks for harm; ``category``: in the suite's own words."""

    suite: SuiteName
    category: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How to sample one completion. ``temperature`` 0 is greedy; no top-p or top-k: they break PPO's ratios."""

    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One sampled continuation.

    ``token_ids`` holds the EOS (or the tokens that made the stop string) when ``finish_reason`` is "stop";
    ``logprobs`` [T] are at the sampling temperature, one for each token id. ``text`` excludes EOS and stop string.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    policy_version_start: int
    policy_version_end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where a row comes from, what became of it, and what made it: the first columns of every table.

    ``seconds`` is wall-clock time spent on the row next to its engine.
    """

    id: str
    source_file: str
    source_row: int
    status: Status
    error: str | None
    seconds: float
    seed: int
    model_version: str
    axis: Axis

    @classmethod
    def of(cls, row: Prompt | Provenance, **own: Any) -> Self:
        """The record made of ``row``: fields that both have by name are carried over, ``own`` adds or replaces others.

        What says how a record was made (``NOT_CARRIED``) is never carried over.
        """
        carried = {name: value for name, value in _carried(cls, row).items() if name not in NOT_CARRIED}
        return cls(**(carried | own))


NOT_CARRIED = {"status", "error", "seconds", "seed", "model_version"}


def _carried(record_type: type[Provenance], *rows: Prompt | Provenance | ScoredSample) -> dict[str, Any]:
    """The fields of ``record_type`` that ``rows`` have by the same name."""
    names = {field.name for field in fields(record_type)}
    return {field.name: getattr(row, field.name) for row in rows for field in fields(row) if field.name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One round of critique and revision; a revision with a ``flaw`` is never trained on."""

    principle_id: str
    critique: str
    revision: str
    flaw: Flaw | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RevisionChain(Provenance):
    """First answer and its revisions, each the answer to the one before. ``token_ids`` are the last revision's."""

    prompt: tuple[Turn, ...]
    response: str
    rounds: tuple[Round, ...]
    token_ids: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison(Provenance):
    """A prompt and two answers, not yet judged. Token ids end in the EOS where an end token was sampled.

    Pairs that were not sampled here have no token ids. ``gold`` is P(answer_1 better) according to the pair's source.
    ``policy_version``: the oldest that sampled any of it; weights may change between its tokens, as in any sample.
    """

    prompt: tuple[Turn, ...]
    prompt_ids: tuple[int, ...]
    answer_1: str
    answer_2: str
    token_ids_1: tuple[int, ...]
    token_ids_2: tuple[int, ...]
    policy_version: int
    truncated: bool
    gold: Probability | None = None

    def swap(self) -> Comparison:
        """The same comparison with its answers exchanged."""
        return replace(
            self,
            answer_1=self.answer_2,
            answer_2=self.answer_1,
            token_ids_1=self.token_ids_2,
            token_ids_2=self.token_ids_1,
            gold=None if self.gold is None else 1 - self.gold,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """One look at a comparison: which answer was in slot A (``order`` 1: answer_1), raw log-probabilities."""

    principle_id: str
    order: Literal[1, 2]
    logprob_a: float
    logprob_b: float
    rationale: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference(Provenance):
    """The debiased soft label: ``prob`` = P(answer_1 better), None unless the status is OK or TIE."""

    prompt: tuple[Turn, ...]
    prompt_ids: tuple[int, ...]
    answer_1: str
    answer_2: str
    token_ids_1: tuple[int, ...]
    token_ids_2: tuple[int, ...]
    policy_version: int
    prob: Probability | None
    aggregation: str
    judgements: tuple[Judgement, ...]
    constitution_hash: str
    template_version: str
    truncated: bool
    gold: Probability | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferencePair:
    """A human comparison for the preference model: ``chosen`` was preferred to ``rejected`` after ``prompt``."""

    id: str
    source_file: str
    source_row: int
    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredAnswer:
    text: str
    votes: int
    accepted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredAnswers:
    """A public question and its answers with votes, for preference-model pretraining."""

    id: str
    source_file: str
    source_row: int
    question: str
    answers: tuple[ScoredAnswer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutSample(Provenance):
    """A sample of the policy on its way to the scorer. ``prompt_ids`` are what the engine was given for ``prompt``."""

    prompt: tuple[Turn, ...]
    prompt_ids: tuple[int, ...]
    completion: Completion
    truncated: bool  #: as in other records: turns of the prompt were dropped, or its only one shortened


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSample:
    """A rollout with its score: what the policy learner consumes.

    ``logprobs`` [T] are the engine's, at the sampling temperature, for ``response_ids`` [T] (EOS included where it
    was sampled); ``score`` is the preference score, re-centred when the model has been refreshed.
    """

    id: str
    axis: Axis
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    score: float
    policy_version_start: int
    preference_model_version: int  #: 0: the first fit, or none

    @classmethod
    def of(cls, sample: RolloutSample, *, score: float, preference_model_version: int) -> ScoredSample:
        completion = sample.completion
        return cls(
            id=sample.id,
            axis=sample.axis,
            prompt_ids=sample.prompt_ids,
            response_ids=completion.token_ids,
            logprobs=completion.logprobs,
            finish_reason=completion.finish_reason,
            score=score,
            policy_version_start=completion.policy_version_start,
            preference_model_version=preference_model_version,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout(Provenance):
    """One sample of the policy with its score. ``logprobs`` [T] belong to ``response_ids`` [T], EOS included.

    Written when its batch has been learned: ``kl`` is the sum over the response of (log policy - log reference),
    ``advantage_mean`` the mean of the advantage over its tokens, ``score`` the one that was learned from.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    policy_version_start: int
    policy_version_end: int
    preference_model_version: int
    score: float
    kl: float
    advantage_mean: float
    truncated: bool = False  #: earlier releases did not say

    @classmethod
    def from_scored(cls, sample: RolloutSample, scored: ScoredSample, *, kl: float, advantage_mean: float) -> Rollout:
        return cls(
            **_carried(cls, sample, scored),
            policy_version_end=sample.completion.policy_version_end,
            kl=kl,
            advantage_mean=advantage_mean,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Provenance):
    """An answer sampled for evaluation from one snapshot (``helpful_only``, ``sl_cai``, ``rl_cai``)."""

    snapshot: str
    prompt: tuple[Turn, ...]
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    truncated: bool = False  #: earlier releases did not say


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteAnswer(Answer):
    """An answer to a prompt of a test suite. ``gold``: what people say that it does."""

    suite: str
    category: str
    gold: RefusalClass | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusalVerdict(Provenance):
    """What the judge says that an answer does. ``logprobs`` [3, 3]: of ``REFUSAL_CLASSES``, in each order in which the
    judge was shown them. ``probs`` [3]: the label; None unless the status is OK."""

    logprobs: tuple[tuple[float, ...], ...]
    probs: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HarmVerdict(Provenance):
    """How convincing and how specific the judge finds an answer, each from 1 to 5; None unless the status is OK."""

    convincing: float | None
    specific: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerScore(Provenance):
    """What one of the run's preference models thinks of an answer to a held-out prompt."""

    snapshot: str
    score: float
    truncated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutScore(Provenance):
    """What a preference model that the policy was not trained against thinks of a rollout, beside what it learned."""

    batch: int
    learned_score: float
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """A row that was taken out, and why; it is counted and written to ``quarantine.jsonl``.

    ``kind``: of the rows that it was to become one of. Readers say "read"; a run puts the kind of the source in its
    place. A row that failed for a cause outside itself is tried again by the same command.
    """

    id: str
    file: str
    row: int
    kind: str
    batch: int = NO_BATCH
    fault: Fault = "row"
    cause: str

    @property
    def stage(self) -> str:
        """What ``quarantine.jsonl`` says under ``stage``: the kind, and the batch if it has one."""
        return self.kind if self.batch == NO_BATCH else f"{self.kind}/{self.batch:08d}"
