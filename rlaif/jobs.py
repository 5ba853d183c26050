"""What trainers are asked to do: frozen, picklable, and importable without torch.

Paths are strings, because a job crosses machines. ``Rank`` says which of the processes this one is; a process
group of ``world_size`` exists already when there is more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rlaif.config.schema import Optimization, PreferenceModel, Reinforcement
from rlaif.config.trainer import Trainer

Report = Callable[[Mapping[str, float]], None]  #: takes the metrics of one optimizer step
JobReport = Callable[[str, Mapping[str, float]], None]  #: takes the name of a job, and the metrics of one step


def no_beat() -> None:
    """Nobody watches this rank."""


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One process of a trainer, ``index`` in 0 .. ``world_size`` - 1. It calls ``beat`` whenever it has got on: after
    each forward or backward pass, and for each tensor that is gathered. Work without a beat is taken for a hang."""

    index: int = 0
    world_size: int = 1
    beat: Callable[[], None] = field(default=no_beat, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class SFTJob:
    """Fine-tune ``base_model`` on the parquet ``dataset`` and save the result at ``output``.

    Rows: ``id, input_ids, prompt_length``; the loss is on ``input_ids[prompt_length:]``, EOS included. ``tokenizer``: a
    directory with the one to save, whose EOS ends the rows; None: that of the base. ``name`` begins every metric's key.
    """

    base_model: str
    dataset: str
    output: str
    max_length: int
    optimization: Optimization
    trainer: Trainer
    seed: int
    name: str = "supervise"
    tokenizer: str | None = None


@dataclass(frozen=True, kw_only=True)
class PreferenceJob:
    """Fit a preference model on pairs and save it at ``output``; save it at ``unfitted`` as it was before the fit:
    pretrained, or the base with a new head.

    ``pretraining``, ``fit`` and ``heldout`` are parquet files of rows ``id, axis, input_ids_1, input_ids_2, prob,
    weight``: two whole dialogues that end in EOS, P(1 better), and the loss weight. ``tokenizer``: a directory with the
    policy's, which made the rows and is saved with the model; None: that of the base. ``name`` begins every metric's
    key.
    """

    base_model: str
    pretraining: str | None
    fit: str
    heldout: str | None
    output: str
    unfitted: str
    settings: PreferenceModel
    trainer: Trainer
    seed: int
    name: str = "preference"
    tokenizer: str | None = None


@dataclass(frozen=True, kw_only=True)
class RefreshRows:
    """What one refresh learns from: parquet files like those of ``PreferenceJob``. ``fit``: the fresh pairs and older
    ones; ``fresh``: only the fresh pairs, on which the model is measured before it learns; ``heldout``: those of the
    first fit, if it has any, on which it is measured afterwards."""

    fit: str
    fresh: str
    heldout: str | None


@dataclass(frozen=True, kw_only=True)
class RefreshJob:
    """Serve the preference model at ``model`` as version 0; on each refresh, fit the one at ``unfitted`` again.

    ``probes`` is a parquet file of pairs, whose dialogues are the frozen probe set. ``checkpoint`` is a directory that
    ``RefreshLearner.save_checkpoint`` wrote, to go on from.
    """

    model: str
    unfitted: str
    probes: str
    settings: PreferenceModel
    trainer: Trainer
    seed: int
    name: str = "refresh"
    checkpoint: str | None = None


@dataclass(frozen=True, kw_only=True)
class PPOJob:
    """Train the model at ``policy`` against scores; the value function starts from ``preference_model``, or from the
    policy's own backbone when there is none.

    ``temperature`` is that of the rollouts: log-probabilities are compared at it. ``value_warmup_epochs``: passes over
    the first batch of a refreshed preference model that train only the value function. ``checkpoint``: a directory that
    ``PPOLearner.save_checkpoint`` wrote, to go on from.
    """

    policy: str
    preference_model: str | None
    settings: Reinforcement
    temperature: float
    trainer: Trainer
    seed: int
    value_warmup_epochs: int = 0
    checkpoint: str | None = None
