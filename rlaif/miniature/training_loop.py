"""How a tiny model is trained: a plain torch loop on one core.

Shapes: B sequences of a batch, T tokens of the longest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from rlaif.miniature.batches import NOT_LEARNED, Batch
from rlaif.miniature.muon import Muon


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Learning rates rise over ``warmup`` steps, then decay as a cosine to a hundredth of their peak."""

    steps: int
    batch_size: int
    learning_rate: float = 5e-3
    matrix_learning_rate: float = 0.02
    warmup: int = 20

    def factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def batch_loss(model: LlamaForCausalLM, batch: Batch, letters: Tensor | None) -> Tensor:
    """Mean cross-entropy over the learned positions; only these go through the output head."""
    hidden = model.model(batch.ids, use_cache=False).last_hidden_state
    learned = batch.targets != NOT_LEARNED
    logits = model.lm_head(hidden[learned])
    if batch.soft is None:
        return F.cross_entropy(logits, batch.targets[learned])
    assert letters is not None
    return -(batch.soft * torch.log_softmax(logits, -1)[:, letters]).sum(-1).mean()


def train(
    model: LlamaForCausalLM,
    batches: Sequence[Batch],
    recipe: Recipe,
    letters: Tensor | None = None,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """``recipe.steps`` steps over ``batches``: Muon for the layers' matrices, AdamW for the rest."""
    optimizers = _optimizers(model, recipe)
    model.train()
    for step in range(recipe.steps):
        loss = batch_loss(model, batches[step % len(batches)], letters)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * recipe.factor(step)
            optimizer.step()
        model.zero_grad()
        report(step, loss.item())
    model.eval()


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """With Muon, a model learns to copy from the request in half of AdamW's steps, and to judge in a quarter."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inner = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inner]
    muon = {"params": matrices, "peak": recipe.matrix_learning_rate}
    adamw = {"params": others, "peak": recipe.learning_rate}
    return (
        Muon([muon], lr=recipe.matrix_learning_rate),
        torch.optim.AdamW([adamw], lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    )
