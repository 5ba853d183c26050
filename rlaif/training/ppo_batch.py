"""A batch as the policy learner takes it, and the learner's state between two batches.

Legend: ``B`` rollouts, ``T`` the longest response.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.algorithms.advantage import Normalization, RewardStatistics, kl_coefficient
from rlaif.algorithms.experience import Experience, Forwards
from rlaif.algorithms.over_refusal import GuardState
from rlaif.config.schema import KL
from rlaif.errors import ModelError
from rlaif.records import ScoredSample

#: Sampled tokens whose log-probabilities engines must reproduce (``engines.proof``): enough for a mean, and few: the
#: proof is a forward pass over them. So of each answer its beginning is taken, after the end of its prompt.
PROBED_TOKENS = 256
NUM_PROBES, PROBED_OF_EACH, PROBE_CONTEXT = 32, 32, 16
STATE_FILE = "progress.json"  #: in a checkpoint's directory


class ProbeTokens(NamedTuple):
    """A sequence, of which the log-probabilities of the last ``num_probed`` tokens are compared."""

    token_ids: tuple[int, ...]
    num_probed: int


@dataclass(frozen=True, kw_only=True)
class LearnerState:
    """What a checkpoint holds besides weights and optimizers."""

    version: int  #: of the policy: batches learned so far
    coefficient: float  #: of the KL penalty
    statistics: RewardStatistics
    guard: GuardState | None  #: None before the first batch
    probes: tuple[ProbeTokens, ...]  #: from the last batch
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
            probes=tuple(map(_saved_probe, saved["probes"])),
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
            probes=draw_probes(self.samples),
            preference_model_version=self.preference_model_version,
        )


def draw_probes(samples: Sequence[ScoredSample]) -> tuple[ProbeTokens, ...]:
    """From answers all over the batch, until there are ``PROBED_TOKENS``. What the policy sampled are likely tokens as
    a rule, whose log-probabilities bfloat16 computes well: the least likely ones differ by many times as much."""
    probes: list[ProbeTokens] = []
    for sample in samples[:: max(1, len(samples) // NUM_PROBES)][:NUM_PROBES]:
        probed = sample.response_ids[:PROBED_OF_EACH]
        probes.append(ProbeTokens((*sample.prompt_ids[-PROBE_CONTEXT:], *probed), len(probed)))
        if sum(probe.num_probed for probe in probes) >= PROBED_TOKENS:
            break
    return tuple(probes)


def _saved_probe(saved: Any) -> ProbeTokens:
    """Checkpoints of earlier releases have sequences whose last token was compared."""
    ids, num_probed = saved if isinstance(saved[0], list) else (saved, 1)
    return ProbeTokens(tuple(ids), num_probed)
