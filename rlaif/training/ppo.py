"""Reinforcement: what one rank of the policy learner does. The algorithms differ only in the advantage.

Legend: ``B`` rollouts of a batch, ``T`` its longest response.

    samples -> forward passes (old, reference, values) -> experience [B, T] -> epochs x minibatches of optimizer steps

All ranks get the same batch; each runs its share of the forward and backward passes (``ppo_networks``), and the
experience is put together on every rank, so advantages, whitening and reward statistics are those of the whole batch.

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
5. After a refresh of the preference model, the first batch that the new one scored trains only the value function
   before its advantages are taken: values learned for the old model's scores would be wrong baselines.
6. Minibatch order depends only on (seed, version, epoch), so a resumed run repeats it without a saved RNG state.
7. Helpful prompts may weigh more while their scores are below SL-CAI's: the guard in ``over_refusal``.

``rlaif.algorithms.plain_ppo`` is the same algorithm in forty lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from rlaif.algorithms.advantage import Normalization, RewardStatistics
from rlaif.algorithms.experience import check_samples, experience, not_finite
from rlaif.algorithms.over_refusal import update_guard
from rlaif.interfaces import Learned, Probe, Weights
from rlaif.jobs import PPOJob, Rank
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import ScoredSample
from rlaif.training.deepspeed import start_rank
from rlaif.training.divergence import diverged
from rlaif.training.ppo_batch import LearnerState, PPOBatch, ProbeTokens
from rlaif.training.ppo_checkpoint import PPOCheckpoint
from rlaif.training.ppo_networks import Networks
from rlaif.training.ppo_report import describe_batch, describe_drift, describe_steps
from rlaif.training.rollouts import draw_minibatches
from rlaif.training.saving import save_model
from rlaif.training.weight_buckets import gather_weights

POLICY_PREFIX = "language_model."  #: of the policy's parameters, in the module that is trained


class PPOLearner:
    """One rank of the policy learner. Every rank must make the same calls in the same order."""

    def __init__(self, job: PPOJob, rank: Rank) -> None:
        """Load the three networks. Raises ModelError; resumes from ``job.checkpoint`` when there is one."""
        start_rank(rank, job.trainer)
        torch.manual_seed(job.seed)
        self._job, self._rank, self._settings = job, rank, job.settings
        self._tokenizer = load_tokenizer(job.policy)
        self._networks = Networks(job, rank)
        vocabulary: int = self._networks.policy_model.language_model.config.vocab_size
        self._state = LearnerState(
            version=0,
            coefficient=job.settings.kl.coefficient,
            statistics=RewardStatistics(),
            guard=None,
            probes=(ProbeTokens(tuple(range(min(8, vocabulary))), 1),),
        )
        self._checkpoint: PPOCheckpoint | None = None
        if job.checkpoint is not None:
            self._load_checkpoint(Path(job.checkpoint))

    # ------------------------------------------------------------------------------------------------ learning
    def learn(self, samples: Sequence[ScoredSample]) -> Learned:
        """Learn one global batch, the same on every rank; ``group_size`` in a row share a prompt.

        Raises DataError for samples that cannot be learned from, and DivergenceError when the networks compute NaN or
        infinity for all of them, or too many gradients are not finite.
        """
        if not samples:
            return self._skip()
        check_samples(samples, self._settings.group_size)
        batch = self._batch(samples)
        if left_out := not_finite(samples, batch.forwards, self._settings.group_size):
            batch = self._batch_without(left_out, samples)
        if batch.preference_model_version != self._state.preference_model_version:
            batch = self._warm_up(batch)
        minibatches = self._minibatches(batch, self._settings.epochs)
        steps = [self._networks.step(batch, rows, self._rate) for rows in minibatches]
        self._state = batch.state_after(self._settings.kl)
        norms = {f"reinforce/{name}/grad_norm": model.grad_norm() for name, model in self._networks.trained.items()}
        advantages, mask = batch.experience.advantages, batch.experience.mask
        return Learned(
            version=self._state.version,
            metrics={**describe_batch(batch), **describe_drift(batch), **describe_steps(steps), **norms},
            kl=tuple(batch.experience.sequence_kl.tolist()),
            advantage_mean=tuple((advantages.sum(1) / mask.sum(1)).tolist()),
            left_out=left_out,
        )

    def _skip(self) -> Learned:
        """A batch of which no rollout came back: nothing to learn, and the next one must not wait for it."""
        self._state = replace(self._state, version=self._state.version + 1)
        return Learned(
            version=self._state.version, metrics={"reinforce/data/num_samples": 0.0}, kl=(), advantage_mean=()
        )

    def _batch(self, samples: Sequence[ScoredSample]) -> PPOBatch:
        """The batch as the networks see it now."""
        settings, before = self._settings, self._state
        statistics = before.statistics.with_scores(torch.tensor([sample.score for sample in samples]))
        normalize = Normalization.of(statistics, settings)
        guard = update_guard(before.guard, samples)
        helpful_weight = 1 + settings.helpfulness_penalty * guard.shortfall(settings.helpfulness_margin)
        forwards = self._networks.forwards(samples, normalize)
        return PPOBatch(
            samples=samples,
            before=before,
            statistics=statistics,
            normalize=normalize,
            guard=guard,
            helpful_weight=helpful_weight,
            forwards=forwards,
            experience=experience(samples, forwards, settings, normalize, before.coefficient, helpful_weight),
        )

    def _batch_without(self, left_out: frozenset[str], samples: Sequence[ScoredSample]) -> PPOBatch:
        """The batch of the other samples: what is not finite must touch neither statistics nor weights."""
        kept = [sample for sample in samples if sample.id not in left_out]
        if not kept:
            raise diverged(f"policy, reference or value compute nothing finite for batch {self._state.version}")
        return self._batch(kept)

    def _warm_up(self, batch: PPOBatch) -> PPOBatch:
        """The batch after passes over it that train only the value function, unclipped."""
        if self._networks.value is None:
            return batch
        for _ in range(self._job.value_warmup_epochs):
            for rows in self._minibatches(batch, epochs=1):
                self._networks.step_value(batch, rows, self._rate, clip=math.inf)
            batch = self._batch(batch.samples)
        return batch

    def _minibatches(self, batch: PPOBatch, epochs: int) -> Iterator[list[int]]:
        key = (self._job.seed, self._state.version)
        return draw_minibatches(len(batch.samples), self._settings.minibatch_size, epochs, key)

    @property
    def _rate(self) -> float:
        """Share of the learning rates that is left for the batch at hand."""
        return 1 - self._state.version / self._settings.batches

    # ----------------------------------------------------------------------------------------- what comes out
    def weights(self) -> Weights:
        """The current policy and a probe of it, as ``gather_weights``; every rank must call it."""
        module = self._networks.policy.module
        return gather_weights(module, POLICY_PREFIX, self._rank, self._state.version, self._probe())

    def _probe(self) -> Probe:
        """At temperature 1, as engines report it."""
        probes, device = self._state.probes, self._networks.policy.device
        width = max(len(probe.token_ids) for probe in probes)
        ids = torch.tensor([[*probe.token_ids, *[0] * (width - len(probe.token_ids))] for probe in probes])
        ends = [row * width + len(probe.token_ids) for row, probe in enumerate(probes)]
        places = [
            place for end, probe in zip(ends, probes, strict=True) for place in range(end - probe.num_probed, end)
        ]
        chosen = torch.tensor(places, device=device)
        ids = ids.to(device)
        with torch.no_grad():
            logprobs, _ = self._networks.policy(ids, chosen - 1, ids.flatten()[chosen])
        values = iter(logprobs.tolist())
        return Probe(
            token_ids=tuple(probe.token_ids for probe in probes),
            values=tuple(tuple(islice(values, probe.num_probed)) for probe in probes),
        )

    def save(self, path: str | Path) -> None:
        """Save the policy in Hugging Face layout; returns on every rank when the files are there."""
        save_model(self._networks.policy_model.language_model, self._tokenizer, str(path), self._rank)

    def begin_checkpoint(self, path: str | Path) -> None:
        """Everything needed to go on exactly from here, to be written while learning goes on if the settings say so;
        every rank must call it with the same ``path``."""
        in_background = self._settings.checkpoint_in_background
        trained = self._networks.trained.items()
        writers = [model.begin_checkpoint(Path(path, name), in_background) for name, model in trained]
        self._checkpoint = PPOCheckpoint(path=Path(path), writers=writers, state=self._state)

    def finish_checkpoint(self) -> bool:
        """Whether the checkpoint that was begun is there by now; every rank must call it. Raises what writing it
        raised."""
        assert self._checkpoint is not None
        return self._checkpoint.finish(self._rank, self._networks.policy.device)

    def _load_checkpoint(self, path: Path) -> None:
        self._state = LearnerState.load(path)
        for name, model in self._networks.trained.items():
            model.load_checkpoint(path / name)

    def close(self) -> None:
        """Let go of the networks."""
        self._networks.close()
