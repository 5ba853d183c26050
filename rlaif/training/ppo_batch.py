"""A batch as the policy learner takes it, and the learner's state between two batches.

Legend: ``B`` rollouts, ``T`` the longest response.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rlaif.algorithms.advantage import Normalization, RewardStatistics, kl_coefficient
from rlaif.algorithms.experience import Experience, Forwards
from rlaif.algorithms.over_refusal import GuardState
from rlaif.config.schema import KL
from rlaif.errors import ModelError
from rlaif.records import ScoredSample

NUM_PROBES = 4
PROBE_TOKENS = 8  #: of each: an engine's proof is a forward pass over all of them, whole dialogues cost many copies
STATE_FILE = "progress.json"  #: in a checkpoint's directory


@dataclass(frozen=True, kw_only=True)
class LearnerState:
    """What a checkpoint holds besides weights and optimizers."""

    version: int  #: of the policy: batches learned so far
    coefficient: float  #: of the KL penalty
    statistics: RewardStatistics
    guard: GuardState | None  #: None before the first batch
    probes: tuple[tuple[int, ...], ...]  #: from the last batch, for ``Weights.probe``
    preference_model_version: int = 0  #: that scored the last batch

    def save(self, checkpoint: Path) -> None:
        fields = asdict(self)
        fields["watched"] = fields.pop("guard")  # its key in the checkpoints of earlier releases
        (checkpoint / STATE_FILE).write_text(json.dumps(fields))

    @classmethod
    def load(cls, checkpoint: Path) -> LearnerState:
        """Raises ModelError for a checkpoint that was not finished."""
        try:
            saved = json.loads((checkpoint / STATE_FILE).read_text())
        except OSError as error:
            raise ModelError(f"{checkpoint}: is not a whole policy checkpoint: {error}") from error
        return cls(
            version=saved["version"],
            coefficient=saved["coefficient"],
            statistics=RewardStatistics(**saved["statistics"]),
            guard=GuardState(**saved["watched"]) if saved["watched"] else None,
            probes=tuple(map(tuple, saved["probes"])),
            preference_model_version=saved["preference_model_version"],
        )


@dataclass(frozen=True, kw_only=True)
class PPOBatch:
    """One global batch before it is learned, the same on every rank."""

    samples: Sequence[ScoredSample]  #: [B]
    before: LearnerState
    statistics: RewardStatistics  #: of all scores, this batch's included
    normalize: Normalization
    guard: GuardState  #: this batch included
    helpful_weight: float  #: of helpful prompts' advantages
    forwards: Forwards
    experience: Experience

    @property
    def preference_model_version(self) -> int:
        """That scored all of the samples."""
        return self.samples[0].preference_model_version

    def num_tokens(self, rows: Sequence[int]) -> float:
        """Response tokens of ``rows``."""
        return float(self.experience.mask[rows].sum())

    def state_after(self, kl: KL) -> LearnerState:
        """The learner's state once this batch is learned."""
        sequence_kl = self.experience.sequence_kl.mean().item()
        return LearnerState(
            version=self.before.version + 1,
            coefficient=kl_coefficient(kl, self.before.coefficient, sequence_kl, len(self.samples)),
            statistics=self.statistics,
            guard=self.guard,
            probes=tuple(map(probe_tokens, self.samples[:NUM_PROBES])),
            preference_model_version=self.preference_model_version,
        )


def probe_tokens(sample: ScoredSample) -> tuple[int, ...]:
    """The least likely token of an answer, and what comes before it: there probabilities move most when weights change,
    and an engine that still serves the old ones is caught. An EOS would not do: its probability stays near 1."""
    least = int(np.argmin(sample.logprobs))
    return (*sample.prompt_ids, *sample.response_ids[: least + 1])[-PROBE_TOKENS:]
