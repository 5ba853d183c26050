"""Reinforcement: what one rank of the policy learner does. PPO, RLOO and GRPO differ in the advantage alone.

Legend: ``B`` rollouts of a batch, ``T`` its longest response, ``N`` the response tokens of a micro-batch.

    samples -> forward passes (old, reference, values) -> experience [B, T] -> epochs x minibatches of optimizer steps

Three networks live on the ranks: the policy and the value function, each under a DeepSpeed engine of its own, and the
frozen reference, which is the policy the run began with. All ranks get the same batch; each runs its share of the
forward and backward passes, and the experience is put together on every rank, so advantages, whitening and reward
statistics are those of the whole batch.

Sources: PPO, arXiv 1707.06347; with KL penalty, arXiv 1909.08593, section 2; the paper's setting, arXiv 2204.05862,
section 4. The algorithms' own departures are listed in ``advantage`` and ``losses``.

Departures from the papers:
1. Old log-probabilities and values are recomputed here when a batch is consumed, not taken from the engine.
2. The value function is the preference model's backbone with its head read at every token. It stays in preference-score
   units and is brought to reward units by the same running normalisation as the rewards, so when the statistics move,
   values move with the rewards.
3. Dropout is off, also in optimizer steps: it would put noise into every ratio.
4. Learning rates fall linearly to zero over the run's batches, as in the PPO paper's Atari setting (table 5) and not in
   the constitutional one: whitened advantages never shrink, so a constant rate ends in a policy full of their noise.
5. When the preference model was refreshed, the first batch that the new one scored trains the value function alone
   before its advantages are taken: values learned for the old model's scores would be wrong baselines.
6. Minibatch order depends on (seed, version, epoch) alone, so a resumed run repeats it without a saved RNG state.
7. Helpful prompts may weigh more while their scores are below SL-CAI's: the guard against over-refusal, in ``watch``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlaif.algorithms.advantage import Normalization, RewardStatistics, kl_coefficient
from rlaif.algorithms.experience import Experience, Forwards, check_samples, experience, response_mask, rollout_logprobs
from rlaif.algorithms.losses import policy_loss, value_loss
from rlaif.algorithms.over_refusal import Watched, boilerplate_rate, watched
from rlaif.errors import ModelError
from rlaif.interfaces import Learned, Probe, Weights
from rlaif.jobs import PPOJob, Rank
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import ScoredSample
from rlaif.training.deepspeed import DeepSpeedModel, Frozen, add_over_ranks, start_rank, summed, wait_for_all
from rlaif.training.models import (
    PolicyModel,
    ScalarModel,
    as_numpy,
    load_policy,
    load_scorer,
    new_scorer,
    save_model,
)
from rlaif.training.rollouts import MicroBatch, flat, micro_batch, put, share

NUM_PROBES = 4
PROBE_TOKENS = 8  #: of each: an engine's proof is a forward pass over all of them, whole dialogues cost many copies


@dataclass(frozen=True, kw_only=True)
class LearnerState:
    """What a checkpoint holds besides weights and optimizers."""

    version: int
    coefficient: float
    statistics: RewardStatistics
    watched: Watched | None  #: None before the first batch
    probes: tuple[tuple[int, ...], ...]  #: from the last batch, for ``Weights.probe``
    preference_model_version: int = 0  #: that scored the last batch


class PPOLearner:
    """One rank of the policy learner. Every rank must make the same calls in the same order."""

    def __init__(self, job: PPOJob, rank: Rank) -> None:
        """Load the three networks. Raises ModelError; resumes from ``job.checkpoint`` when there is one."""
        start_rank(rank, job.trainer)
        torch.manual_seed(job.seed)
        self._job, self._rank, self._settings = job, rank, job.settings
        self._tokenizer = load_tokenizer(job.policy)
        self._policy_model = load_policy(job.policy, job.trainer.dtype)
        self._reference = Frozen(load_policy(job.policy, job.trainer.dtype), job.trainer)
        self._policy = self._engine(self._policy_model, job.settings.learning_rate)
        self._value = self._value_engine()
        self._progress = LearnerState(
            version=0,
            coefficient=job.settings.kl.coefficient,
            statistics=RewardStatistics(),
            watched=None,
            probes=(tuple(range(min(8, self._policy_model.language_model.config.vocab_size))),),
        )
        if job.checkpoint is not None:
            self._load_checkpoint(Path(job.checkpoint))

    def _engine(self, model: PolicyModel | ScalarModel, learning_rate: float) -> DeepSpeedModel:
        engine = DeepSpeedModel(
            model,
            self._job.trainer,
            self._rank,
            learning_rate=learning_rate,
            warmup_steps=self._settings.warmup_steps,
            max_grad_norm=self._settings.max_grad_norm,
        )
        model.eval()  # dropout off
        return engine

    def _value_engine(self) -> DeepSpeedModel | None:
        if self._settings.algorithm != "ppo":
            return None
        dtype = self._job.trainer.dtype
        if self._job.preference_model is None:
            model = new_scorer(self._job.policy, dtype, load_tokenizer(self._job.policy), self._job.seed)
        else:
            model = load_scorer(self._job.preference_model, dtype)
        return self._engine(model, self._settings.value_learning_rate)

    # ------------------------------------------------------------------------------------------------ learning
    def learn(self, samples: Sequence[ScoredSample]) -> Learned:
        """Learn one global batch, the same on every rank; ``group_size`` in a row share a prompt.

        Raises DataError for samples that cannot be learned from.
        """
        if not samples:
            return self._pass_by()
        check_samples(samples, self._settings.group_size)
        before = self._progress
        statistics = before.statistics.updated(torch.tensor([sample.score for sample in samples]))
        normalize = self._normalization(statistics)
        seen = watched(before.watched, samples)
        weight = 1 + self._settings.helpfulness_penalty * seen.shortfall(self._settings.helpfulness_margin)
        forwards, batch = self._experience(samples, normalize, weight)
        if samples[0].preference_model_version != before.preference_model_version:
            forwards, batch = self._warmed_up(samples, forwards, batch, normalize, weight)
        minibatches = self._minibatches(len(samples), self._settings.epochs)
        steps = [self._step(samples, rows, batch, normalize) for rows in minibatches]
        sequence_kl = batch.sequence_kl.mean().item()
        self._progress = LearnerState(
            version=before.version + 1,
            coefficient=kl_coefficient(self._settings.kl, before.coefficient, sequence_kl, len(samples)),
            statistics=statistics,
            watched=seen,
            probes=tuple(map(probe_of, samples[:NUM_PROBES])),
            preference_model_version=samples[0].preference_model_version,
        )
        means = {f"reinforce/{name}": float(np.mean([step[name] for step in steps])) for name in steps[0]}
        described = describe(samples, batch, forwards, before) | describe_drift(samples, seen, weight)
        return Learned(
            version=self._progress.version,
            metrics={**described, **means, **self._norms()},
            kl=tuple(batch.sequence_kl.tolist()),
            advantage_mean=tuple((batch.advantages.sum(1) / batch.mask.sum(1)).tolist()),
        )

    def _pass_by(self) -> Learned:
        """A batch of which no rollout came back: nothing to learn, and the next one must not wait for it."""
        self._progress = replace(self._progress, version=self._progress.version + 1)
        return Learned(
            version=self._progress.version, metrics={"reinforce/data/num_samples": 0.0}, kl=(), advantage_mean=()
        )

    def _experience(
        self, samples: Sequence[ScoredSample], normalize: Normalization, helpful_weight: float
    ) -> tuple[Forwards, Experience]:
        forwards, coefficient = self._forwards(samples, normalize), self._progress.coefficient
        return forwards, experience(samples, forwards, self._settings, normalize, coefficient, helpful_weight)

    def _warmed_up(
        self,
        samples: Sequence[ScoredSample],
        forwards: Forwards,
        batch: Experience,
        normalize: Normalization,
        helpful_weight: float,
    ) -> tuple[Forwards, Experience]:
        """The batch as it looks after passes of the value function alone over it, unclipped."""
        if self._value is None:
            return forwards, batch
        for _ in range(self._job.value_warmup_epochs):
            for rows in self._minibatches(len(samples), epochs=1):
                micros, num_tokens = self._micros(samples, rows, batch)
                self._value.step(self._value_losses(micros, batch, normalize, math.inf, num_tokens, {}), self._rate)
            forwards, batch = self._experience(samples, normalize, helpful_weight)
        return forwards, batch

    def _normalization(self, statistics: RewardStatistics) -> Normalization:
        divides = self._settings.reward_normalization == "mean_std"
        return Normalization(mean=statistics.mean, scale=statistics.std if divides else 1.0)

    @torch.no_grad()  # not inference_mode: ZeRO-3 keeps parameters that it gathered in it
    def _forwards(self, samples: Sequence[ScoredSample], normalize: Normalization) -> Forwards:
        """Old and reference log-probabilities, values and entropy of the whole batch, each rank computing its share."""
        mask = response_mask(samples)
        tensors = torch.zeros(4, *mask.shape)
        lengths = sequence_lengths(samples)
        with self._reference.resident() as reference:
            for rows in share(lengths, range(len(samples)), self._job.trainer.micro_batch_tokens, self._rank):
                micro = micro_batch(samples, rows, self._policy.device)
                inputs = micro.input_ids, micro.positions, micro.targets, self._job.temperature
                logprobs, entropy = self._policy(*inputs, with_entropy=True)
                ref_logprobs, _ = reference(*inputs)
                values = torch.zeros_like(logprobs) if self._value is None else self._values(micro, normalize)
                for tensor, found in zip(tensors, (logprobs, ref_logprobs, values, entropy), strict=True):
                    put(tensor, mask, micro, found)
        gathered = add_over_ranks(tensors.to(self._policy.device), self._rank)
        logprobs, ref_logprobs, values, entropy = gathered.cpu().unbind()
        return Forwards(logprobs=logprobs, ref_logprobs=ref_logprobs, values=values, entropy=entropy)

    def _values(self, micro: MicroBatch, normalize: Normalization) -> Tensor:
        assert self._value is not None
        return normalize(self._value(micro.input_ids, micro.positions))

    def _minibatches(self, num_samples: int, epochs: int) -> Iterator[list[int]]:
        """Rows of each optimizer step: every row once an epoch, in a new order each; the tail is kept."""
        for epoch in range(epochs):
            key = (self._job.seed, self._progress.version, epoch)
            order = np.random.default_rng(key).permutation(num_samples).tolist()
            for first in range(0, num_samples, self._settings.minibatch_size):
                yield order[first : first + self._settings.minibatch_size]

    def _step(
        self, samples: Sequence[ScoredSample], rows: list[int], batch: Experience, normalize: Normalization
    ) -> dict[str, float]:
        """One optimizer step of policy and value function on ``rows``; its losses and metrics over all ranks."""
        micros, num_tokens = self._micros(samples, rows, batch)
        sums: dict[str, Tensor] = {}
        self._policy.step(self._policy_losses(micros, batch, num_tokens, sums), self._rate)
        if self._value is not None:
            clip = self._settings.value_clip
            self._value.step(self._value_losses(micros, batch, normalize, clip, num_tokens, sums), self._rate)
        return summed({name: value.item() for name, value in sums.items()}, self._rank, self._policy.device)

    def _micros(
        self, samples: Sequence[ScoredSample], rows: list[int], batch: Experience
    ) -> tuple[list[MicroBatch], float]:
        """This rank's micro-batches of ``rows``, and the response tokens of all ranks'."""
        plan = share(sequence_lengths(samples), rows, self._job.trainer.micro_batch_tokens, self._rank)
        micros = [micro_batch(samples, taken, self._policy.device) for taken in plan]
        return micros, float(batch.mask[rows].sum())

    @property
    def _rate(self) -> float:
        """Of the learning rates, for the batch at hand."""
        return 1 - self._progress.version / self._settings.batches

    def _policy_losses(
        self, micros: Sequence[MicroBatch], batch: Experience, num_tokens: float, sums: dict[str, Tensor]
    ) -> Iterator[Tensor]:
        for micro in micros:
            logprobs, _ = self._policy(micro.input_ids, micro.positions, micro.targets, self._job.temperature)
            old, advantages, importance = (
                flat(tensor, batch.mask, micro) for tensor in (batch.logprobs, batch.advantages, batch.importance)
            )
            loss, metrics = policy_loss(logprobs, old, advantages, importance, self._settings.clip, num_tokens)
            weight = 1.0 if micro.rows else 0.0
            add(sums, "policy", weight, {"loss": loss.detach(), **metrics})
            yield loss * weight

    def _value_losses(
        self,
        micros: Sequence[MicroBatch],
        batch: Experience,
        normalize: Normalization,
        clip: float,
        num_tokens: float,
        sums: dict[str, Tensor],
    ) -> Iterator[Tensor]:
        for micro in micros:
            values = self._values(micro, normalize)
            old, returns = (flat(tensor, batch.mask, micro) for tensor in (batch.values, batch.returns))
            loss, metrics = value_loss(values, old, returns, clip, num_tokens)
            weight = 1.0 if micro.rows else 0.0
            add(sums, "value", weight, {"loss": loss.detach(), **metrics})
            yield loss * weight

    def _norms(self) -> dict[str, float]:
        norms = {"reinforce/policy/grad_norm": self._policy.grad_norm()}
        if self._value is not None:
            norms["reinforce/value/grad_norm"] = self._value.grad_norm()
        return norms

    # ----------------------------------------------------------------------------------------- what comes out
    def weights(self) -> Weights:
        """The current policy and a probe of it; every rank must call it, the tensors are on rank 0 alone."""
        state = self._policy_state()
        arrays = {id(tensor): as_numpy(tensor) for tensor in state.values()}  # a tied head travels once
        tensors = {name: arrays[id(tensor)] for name, tensor in state.items()}
        return Weights(version=self._progress.version, tensors=tensors, probe=self._probe())

    def _policy_state(self) -> dict[str, Tensor]:
        state = self._policy.full_state()
        return {name.removeprefix("language_model."): tensor for name, tensor in state.items()}

    @torch.no_grad()
    def _probe(self) -> Probe:
        values = []
        for ids in self._progress.probes:
            inputs = torch.tensor([ids], device=self._policy.device)
            last = torch.tensor([len(ids) - 2], device=self._policy.device)
            logprobs, _ = self._policy(inputs, last, inputs[0, -1:])  # temperature 1, as engines report
            values.append(logprobs.item())
        return Probe(token_ids=self._progress.probes, values=tuple(values))

    def save(self, path: str | Path) -> None:
        """Save the policy in Hugging Face layout; returns on every rank when the files are there."""
        state = self._policy_state()
        if self._rank.index == 0:
            save_model(self._policy_model.language_model, state, self._tokenizer, str(path))
        wait_for_all(self._rank)

    def save_checkpoint(self, path: str | Path) -> None:
        """Everything needed to go on exactly; every rank must call it with the same ``path``."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        self._policy.save_checkpoint(str(path / "policy"))
        if self._value is not None:
            self._value.save_checkpoint(str(path / "value"))
        wait_for_all(self._rank)
        if self._rank.index == 0:  # last, so that a checkpoint with this file is whole
            (path / "progress.json").write_text(json.dumps(asdict(self._progress)))
        wait_for_all(self._rank)

    def _load_checkpoint(self, path: Path) -> None:
        try:
            saved = json.loads((path / "progress.json").read_text())
        except OSError as error:
            raise ModelError(f"{path}: is not a whole policy checkpoint: {error}") from error
        self._policy.load_checkpoint(str(path / "policy"))
        if self._value is not None:
            self._value.load_checkpoint(str(path / "value"))
        self._progress = LearnerState(
            version=saved["version"],
            coefficient=saved["coefficient"],
            statistics=RewardStatistics(**saved["statistics"]),
            watched=Watched(**saved["watched"]) if saved["watched"] else None,
            probes=tuple(map(tuple, saved["probes"])),
            preference_model_version=saved["preference_model_version"],
        )


def probe_of(sample: ScoredSample) -> tuple[int, ...]:
    """What comes before the least likely token of an answer, and that token: there probabilities move most when weights
    change, and an engine that still serves the old ones shows. An EOS would not do: its probability stays near 1."""
    least = int(np.argmin(sample.logprobs))
    return (*sample.prompt_ids, *sample.response_ids[: least + 1])[-PROBE_TOKENS:]


def sequence_lengths(samples: Sequence[ScoredSample]) -> list[int]:
    """Prompt and response together, [B]."""
    return [len(sample.prompt_ids) + len(sample.response_ids) for sample in samples]


def add(sums: dict[str, Tensor], group: str, weight: float, metrics: dict[str, Tensor]) -> None:
    """Add a micro-batch's share of each metric; they are already divided by the step's number of tokens."""
    for name, value in metrics.items():
        key = f"{group}/{name}"
        sums[key] = sums.get(key, torch.zeros_like(value)) + weight * value


def describe(
    samples: Sequence[ScoredSample], batch: Experience, forwards: Forwards, before: LearnerState
) -> dict[str, float]:
    """What a batch was like before it was learned."""
    mask = batch.mask
    gaps = (forwards.logprobs - rollout_logprobs(samples, mask))[mask]
    weights = gaps.exp()
    scores = torch.tensor([sample.score for sample in samples])
    staleness = [before.version - sample.policy_version_start for sample in samples]
    found = {
        "score/mean": scores.mean(),
        "score/std": scores.std(unbiased=False),
        "reward/mean": batch.rewards.mean(),
        "kl/sequence_mean": batch.sequence_kl.mean(),
        "kl/sqrt": batch.sequence_kl.mean().clamp(min=0).sqrt(),
        "kl/coefficient": before.coefficient,
        "policy/entropy": forwards.entropy[mask].mean(),
        "gap/abs_logprob_difference": gaps.abs().mean(),
        "gap/effective_sample_size": weights.sum().square() / (weights.numel() * weights.square().sum()),
        "gap/staleness_mean": np.mean(staleness),
        "gap/staleness_max": max(staleness),
        **{f"gap/staleness_share_{age}": staleness.count(age) / len(samples) for age in sorted(set(staleness))},
        "response/length_mean": mask.sum() / len(samples),
        "response/truncated_fraction": np.mean([sample.finish_reason == "length" for sample in samples]),
        "data/num_samples": len(samples),
    }
    for axis in sorted({sample.axis for sample in samples}):
        found[f"score/{axis}"] = np.mean([sample.score for sample in samples if sample.axis == axis])
    if (spread := batch.returns[mask].var(unbiased=False)) > 0:
        unexplained = (batch.returns - batch.values)[mask].var(unbiased=False)
        found["value/explained_variance"] = 1 - unexplained / spread
    return {f"reinforce/{name}": float(value) for name, value in found.items()}


def describe_drift(samples: Sequence[ScoredSample], seen: Watched, helpful_weight: float) -> dict[str, float]:
    """How far the answers have moved from the run's first batch; helpfulness only where prompts ask for help."""
    length = float(np.mean([len(sample.response_ids) for sample in samples]))
    found = {
        "response/length_drift": length / seen.first_length - 1,
        "response/boilerplate_rate": boilerplate_rate([sample.response_ids for sample in samples]),
    }
    if seen.first_helpful is not None and seen.helpful is not None:
        found["helpfulness/level"] = seen.helpful
        found["helpfulness/of_sl_cai"] = seen.first_helpful
        found["helpfulness/weight"] = helpful_weight
    return {f"reinforce/{name}": value for name, value in found.items()}
