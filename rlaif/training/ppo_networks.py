"""The networks of the policy learner on one rank, and what one optimizer step does to them.

The policy and the value function each have a DeepSpeed engine of their own; the frozen reference is the policy that the
run began with. All ranks get the same batch, and each runs its share of the forward and backward passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlaif.algorithms.advantage import Normalization
from rlaif.algorithms.experience import Forwards, response_mask
from rlaif.algorithms.losses import Metrics, policy_loss, value_loss
from rlaif.config.algorithms import ALGORITHMS
from rlaif.config.trainer import Trainer
from rlaif.jobs import PPOJob, Rank
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import ScoredSample
from rlaif.training.collectives import even_passes, sum_tensor_over_ranks
from rlaif.training.deepspeed import DeepSpeedModel, FrozenModel
from rlaif.training.deepspeed_config import frozen_config, partition_config
from rlaif.training.models import PolicyModel, ScalarModel, load_policy, load_scorer, new_scorer, without_dropout
from rlaif.training.ppo_batch import PPOBatch
from rlaif.training.rollouts import MicroBatch, micro_batch, put_tokens, rank_share, sequence_lengths, take_tokens


class Networks:
    """``value`` is None for algorithms without a value function."""

    def __init__(self, job: PPOJob, rank: Rank) -> None:
        """Raises ModelError."""
        self._job, self._rank, self._settings = job, rank, job.settings
        trainer = job.trainer
        self.policy_model = load_policy(job.policy, trainer.dtype, partition_config(trainer))
        is_partitioned = trainer.places_reference == "partitioned"
        reference = load_policy(job.policy, trainer.dtype, frozen_config(trainer) if is_partitioned else None)
        self._reference = FrozenModel(reference, trainer)
        self.policy = self._train(self.policy_model, trainer, job.settings.learning_rate)
        value_model = load_value_model(job)
        self.value = (
            None
            if value_model is None
            else self._train(value_model, trainer.of_value, job.settings.value_learning_rate)
        )

    def _train(self, model: PolicyModel | ScalarModel, trainer: Trainer, learning_rate: float) -> DeepSpeedModel:
        trained = DeepSpeedModel(
            model,
            trainer,
            self._rank,
            learning_rate=learning_rate,
            warmup_steps=self._settings.warmup_steps,
            max_grad_norm=self._settings.max_grad_norm,
        )
        without_dropout(model)  # so that old and new log-probabilities differ by the weights alone
        return trained

    @property
    def trained(self) -> dict[str, DeepSpeedModel]:
        """By the names that metrics and checkpoints give them."""
        return {"policy": self.policy} | ({} if self.value is None else {"value": self.value})

    def close(self) -> None:
        """Let go of all networks."""
        self._reference.close()
        for model in self.trained.values():
            model.close()

    def forwards(self, samples: Sequence[ScoredSample], normalize: Normalization) -> Forwards:
        """Old and reference log-probabilities, values and entropy of the whole batch, each rank computing its share."""
        mask = response_mask(samples)
        tensors = torch.zeros(4, *mask.shape)
        plan = even_passes(self._plan(samples, range(len(samples))), self._rank, self.policy.device)
        # not inference_mode: ZeRO-3 keeps parameters that it gathered in it
        with torch.no_grad(), self._reference.resident() as reference:
            for rows in plan:
                micro = micro_batch(samples, rows, self.policy.device)
                inputs = micro.input_ids, micro.positions, micro.targets, self._job.temperature
                logprobs, entropy = self.policy(*inputs, with_entropy=True)
                ref_logprobs, _ = reference(*inputs)
                values = torch.zeros_like(logprobs) if self.value is None else self.values(micro, normalize)
                for tensor, computed in zip(tensors, (logprobs, ref_logprobs, values, entropy), strict=True):
                    put_tokens(tensor, mask, micro, computed)
        gathered = sum_tensor_over_ranks(tensors.to(self.policy.device), self._rank)
        logprobs, ref_logprobs, values, entropy = gathered.cpu().unbind()
        return Forwards(logprobs=logprobs, ref_logprobs=ref_logprobs, values=values, entropy=entropy)

    def values(self, micro: MicroBatch, normalize: Normalization) -> Tensor:
        """The value before each response token [N], in reward units."""
        assert self.value is not None
        return normalize(self.value(micro.input_ids, micro.positions))

    def step(self, batch: PPOBatch, rows: list[int], rate: float) -> dict[str, float]:
        """One optimizer step of policy and value function on ``rows``, at ``rate`` times their learning rates; losses
        and metrics over all ranks."""
        num_tokens = batch.num_tokens(rows)
        sums = self.policy.step(
            self._plan(batch.samples, rows), lambda taken: self._policy_loss(batch, taken, num_tokens), rate
        )
        figures = {f"policy/{name}": total for name, total in sums.items()}
        if self.value is not None:
            sums = self.step_value(batch, rows, rate, self._settings.value_clip)
            figures |= {f"value/{name}": total for name, total in sums.items()}
        return figures

    def step_value(self, batch: PPOBatch, rows: list[int], rate: float, clip: float) -> dict[str, float]:
        """One optimizer step of the value function."""
        assert self.value is not None
        num_tokens = batch.num_tokens(rows)
        return self.value.step(
            self._plan(batch.samples, rows), lambda taken: self._value_loss(batch, taken, num_tokens, clip), rate
        )

    def _plan(self, samples: Sequence[ScoredSample], rows: Sequence[int]) -> list[list[int]]:
        """This rank's micro-batches of ``rows``."""
        return rank_share(sequence_lengths(samples), rows, self._job.trainer.micro_batch_tokens, self._rank)

    def _policy_loss(self, batch: PPOBatch, rows: list[int], num_tokens: float) -> tuple[Tensor, Metrics]:
        micro, experience = micro_batch(batch.samples, rows, self.policy.device), batch.experience
        logprobs, _ = self.policy(micro.input_ids, micro.positions, micro.targets, self._job.temperature)
        old, advantages, importance = (
            take_tokens(tensor, experience.mask, micro)
            for tensor in (experience.logprobs, experience.advantages, experience.importance)
        )
        return policy_loss(logprobs, old, advantages, importance, self._settings.clip, num_tokens)

    def _value_loss(self, batch: PPOBatch, rows: list[int], num_tokens: float, clip: float) -> tuple[Tensor, Metrics]:
        micro, experience = micro_batch(batch.samples, rows, self.policy.device), batch.experience
        old, returns = (
            take_tokens(tensor, experience.mask, micro) for tensor in (experience.values, experience.returns)
        )
        return value_loss(self.values(micro, batch.normalize), old, returns, clip, num_tokens)


def load_value_model(job: PPOJob) -> ScalarModel | None:
    """What the value function starts from, for algorithms that have one: the preference model, or a new head on the
    policy's backbone. Raises ModelError."""
    if not ALGORITHMS[job.settings.algorithm].needs_value:
        return None
    partition = partition_config(job.trainer.of_value)
    if job.preference_model is None:
        return new_scorer(job.policy, job.trainer.dtype, load_tokenizer(job.policy), job.seed, partition)
    return load_scorer(job.preference_model, job.trainer.dtype, partition)
