"""How long a run takes: an estimate, from a card's data sheet and assumed shares of what it could do at most.

Nothing here is measured. The assumed shares are of well-run systems on one node; rows, prompts and answers are as long
as assumed below. A phase whose sources name no number of rows is estimated for a thousand rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlaif.config.algorithms import ALGORITHMS
from rlaif.config.schema import Config
from rlaif.config.section import LARGEST_COUNT
from rlaif.config.source import Source
from rlaif.config.trainer import Trainer
from rlaif.data.files.sources import row_choice
from rlaif.sizes.architecture import WIDTH, Architecture
from rlaif.sizes.needs import RunNeeds, Unit

TRAINING_SHARE = 0.35  #: of the card's FLOP/s, forward and backward passes: MFU
PREFILL_SHARE = 0.45  #: of the card's FLOP/s
DECODING_SHARE = 0.6  #: of the card's bandwidth
#: Parameters that one CPU thread updates: 0.05e9 measured beside other work, 0.12e9 by its share of the bandwidth.
OFFLOADED_PER_S = 1e8
SYNC_BYTES_PER_S = 1e9  #: weights, from the learner into all engines
PROMPT_TOKENS = 200  #: of a dialogue before the answer
ANSWER_SHARE = 0.6  #: of ``sampling.max_tokens``, and likewise of critiques and revisions
QUESTION_TOKENS = 200  #: of a label beside the two answers and the prompt
QUESTIONS_PER_ANSWER = 5  #: to a test suite, at most: its class in three orders, two ratings
NUM_SNAPSHOTS = 3  #: that answer them
ROWS = 1000  #: where a source names no number


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Of one phase. ``rows`` is what it is for; ``is_whole``: whether that is all of it."""

    phase: str
    seconds: float
    rows: int
    unit: str
    is_whole: bool
    gpus: int

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.gpus / 3600


def durations(config: Config, needs: RunNeeds) -> list[Duration]:
    """Of the phases that can be estimated: on GPUs whose profile is known, with models whose size is known."""
    if needs.machine.profile is None or not needs.num_gpus or needs.unknown:
        return []
    work = _Work(config=config, needs=needs)
    phases = [phase for phase in needs.phases if phase not in phases_on_cpus(needs)]
    return [found for phase in phases if (found := work.phase(phase)) is not None]


def phases_on_cpus(needs: RunNeeds) -> list[str]:
    """Those in which a role has no GPU: how fast it is, no data sheet tells."""
    return [phase for phase in needs.phases if not all(unit.gpus for unit in needs.of_phase(phase))]


@dataclass(frozen=True, kw_only=True)
class _Work:
    config: Config
    needs: RunNeeds

    def phase(self, phase: str) -> Duration | None:
        estimate = {
            "revise": self._revise,
            "supervise": self._supervise,
            "compare": self._compare,
            "label": self._label,
            "fit_preference_model": self._fit,
            "reinforce": self._reinforce,
            "evaluate": self._evaluate,
            "judge": self._judge,
        }.get(phase)
        return None if estimate is None else estimate()

    # ------------------------------------------------------------------------------------------------- the phases
    def _revise(self) -> Duration:
        c = self.config.critique_revision
        prompts, whole = self._rows(self.config.data.red_team)
        helpful, whole_too = self._rows(self.config.data.helpful)
        critique = ANSWER_SHARE * c.max_critique_tokens if c.critique else 0.0
        revising = self._answer + c.rounds * (critique + ANSWER_SHARE * c.max_revision_tokens)
        turns = 1 + c.rounds * (1 + c.critique)
        answers = helpful * self.config.supervision.helpful_samples + self._suites()[0]
        read = (prompts * turns + answers) * PROMPT_TOKENS
        seconds = self._generation("revise", prompts * revising + answers * self._answer, read)
        return self._duration("revise", seconds, prompts + helpful, "prompts", whole and whole_too)

    def _supervise(self) -> Duration:
        settings = self.config.supervision
        prompts, whole = self._rows(self.config.data.red_team)
        helpful, whole_too = self._rows(self.config.data.helpful)
        revisions = self.config.critique_revision.rounds if settings.train_on == "all" else 1
        rows = prompts * revisions + helpful * settings.helpful_samples
        tokens = rows * settings.optimization.epochs * (PROMPT_TOKENS + self._answer)
        steps = rows * settings.optimization.epochs / settings.optimization.batch_size
        seconds = self._training("supervise", "policy_trainer", tokens, steps)
        return self._duration("supervise", seconds, rows, "rows", whole and whole_too)

    def _compare(self) -> Duration:
        pairs, whole = self._rows(self.config.data.red_team)
        answers = 2 * pairs + self._suites()[0]
        seconds = self._generation("compare", answers * self._answer, answers * PROMPT_TOKENS)
        return self._duration("compare", seconds, pairs, "pairs", whole)

    def _label(self) -> Duration:
        pairs, whole = self._rows(self.config.data.red_team)
        return self._duration("label", self._labels("label", pairs), pairs, "pairs", whole)

    def _fit(self) -> Duration:
        settings = self.config.preference_model
        labels, whole = self._rows(self.config.data.red_team)
        pairs = round(labels * (1 + (settings.helpful_per_harmless if self.config.data.helpful_pairs else 0.0)))
        tokens = pairs * settings.fit.epochs * 2 * (PROMPT_TOKENS + self._answer)
        steps = pairs * settings.fit.epochs / settings.fit.batch_size
        seconds = self._training("fit_preference_model", "preference_trainer", tokens, steps)
        return self._duration("fit_preference_model", seconds, pairs, "pairs", whole)

    def _reinforce(self) -> Duration:
        batches = self.config.reinforcement.batches
        return self._duration("reinforce", batches * sum(self.step().values()), batches, "batches", True)

    def step(self) -> dict[str, float]:
        """Seconds of one batch of reinforcement, one part after another."""
        settings = self.config.reinforcement
        rollouts = settings.batch_size
        tokens = rollouts * (PROMPT_TOKENS + self._answer)
        unit = self._unit("reinforce", "policy_trainer")
        policy = self.needs.architectures["supervision.base_model"]
        networks = 2 if ALGORITHMS[settings.algorithm].needs_value else 1  # that are trained; one more is only read
        forwards = (networks + 1) * 2 * policy.parameters * tokens / self._speed(unit, TRAINING_SHARE)
        steps = settings.batch_size / settings.minibatch_size
        trainer = self.config.policy_trainer
        trained = sum(
            settings.epochs * self._training("reinforce", "policy_trainer", tokens, steps, network)
            for network in (trainer, trainer.of_value)[:networks]
        )
        return {
            "rollouts": self._generation("reinforce", rollouts * self._answer, rollouts * PROMPT_TOKENS),
            "forward passes": forwards,
            "training": trained,
            "new weights": WIDTH[self.config.policy_trainer.dtype] * policy.parameters / SYNC_BYTES_PER_S,
        }

    def _evaluate(self) -> Duration:
        prompts, whole = self._suites()
        answers = 2 * self.config.evaluation.answers_per_cell + prompts
        seconds = self._generation("evaluate", answers * self._answer, answers * PROMPT_TOKENS)
        return self._duration("evaluate", seconds, answers, "answers", whole)

    def _judge(self) -> Duration:
        prompts, whole = self._suites()
        answers = NUM_SNAPSHOTS * prompts
        read = answers * QUESTIONS_PER_ANSWER * (QUESTION_TOKENS + PROMPT_TOKENS + self._answer)
        unit, model = self._unit("judge", "labeller"), self.needs.architectures["labeller.model"]
        seconds = 2 * model.parameters * read / self._speed(unit, PREFILL_SHARE)
        matches = 2 * self.config.evaluation.matches
        seconds += self._labels("judge", matches)
        return self._duration("judge", seconds, answers + matches, "answers and matches", whole)

    # ---------------------------------------------------------------------------------------------------- the work
    @property
    def _answer(self) -> float:
        return ANSWER_SHARE * self.config.sampling.max_tokens

    def _suites(self) -> tuple[int, bool]:
        """Prompts of all test suites, as ``_rows`` says it of one source."""
        sources = [source for _, source in self.config.evaluation.suites if source is not None]
        counts = [self._rows(source) for source in sources]
        return sum(num for num, _ in counts), all(whole for _, whole in counts)

    def _rows(self, source: Source) -> tuple[int, bool]:
        """Rows of a source, as far as it says how many it wants, and whether it does."""
        _, choice = row_choice(str(source))
        if choice is None:
            return ROWS, False
        num = choice.num if choice.first is None else choice.num - choice.first + 1
        return min(num, LARGEST_COUNT), True

    def _unit(self, phase: str, role: str) -> Unit:
        return next(unit for unit in self.needs.of_phase(phase) if unit.role == role)

    def _speed(self, unit: Unit, share: float) -> float:
        """FLOP/s of all the units of a role; of a card that is shared, their part."""
        profile = self.needs.machine.profile
        assert profile is not None
        return share * profile.flops * unit.count * unit.parts * min(1.0, unit.gpus)

    def _generation(self, phase: str, written: float, read: float) -> float:
        """Seconds in which all engines of a generator write and read so many tokens. Decoding reads the weights, and
        every sequence's cache, once for a token of each of the sequences that run at once."""
        unit, model = self._unit(phase, "generator"), self._model(phase)
        profile, settings = self.needs.machine.profile, self.config.generator
        assert profile is not None and unit.engine is not None
        length = PROMPT_TOKENS + self._answer / 2
        at_once = max(1.0, min(settings.max_in_flight, unit.engine.cached_tokens / (PROMPT_TOKENS + self._answer)))
        weights = WIDTH[settings.dtype] * model.parameters / unit.parts
        step_s = (weights + at_once * length * unit.engine.token_bytes) / (DECODING_SHARE * profile.bandwidth)
        step_s = max(step_s, 2 * model.parameters * at_once / unit.parts / (PREFILL_SHARE * profile.flops))
        step_s /= min(1.0, unit.gpus) if self._is_shared(phase, unit) else 1.0
        decoding = written / (at_once * unit.count) * step_s
        return decoding + 2 * model.parameters * read / self._speed(unit, PREFILL_SHARE)

    def _is_shared(self, phase: str, unit: Unit) -> bool:
        return unit.gpus < 1 and len([other for other in self.needs.of_phase(phase) if other.gpus]) > 1

    def _labels(self, phase: str, pairs: int) -> float:
        """Seconds for labels in both orders: their prompts are read, and a letter or a rationale is written."""
        unit = self._unit(phase, "labeller")
        model, settings = self.needs.architectures["labeller.model"], self.config.labelling
        read = pairs * settings.principles * 2 * (QUESTION_TOKENS + PROMPT_TOKENS + 2 * self._answer)
        written = 0.0
        if settings.reasoning.mode != "off":
            written = pairs * settings.principles * 2 * settings.reasoning.rationales
            written *= ANSWER_SHARE * settings.reasoning.max_tokens
        # a token that is written costs as much as some 8 that are read: batches are smaller, bandwidth decides
        return 2 * model.parameters * (read + 8 * written) / self._speed(unit, PREFILL_SHARE)

    def _training(self, phase: str, role: str, tokens: float, steps: float, trainer: Trainer | None = None) -> float:
        """Seconds of forward and backward passes, in which checkpointed layers are computed once more, and of the
        optimizer's steps where they are done by CPUs."""
        unit = self._unit(phase, role)
        trainer = trainer or getattr(self.config, role)
        key = "preference_model.base_model" if role == "preference_trainer" else "supervision.base_model"
        passes = 8 if trainer.checkpoints_activations else 6
        parameters = self.needs.architectures[key].parameters
        updates = steps * parameters / unit.count / (OFFLOADED_PER_S * trainer.optimizer_threads)
        passing = passes * parameters * tokens / self._speed(unit, TRAINING_SHARE)
        return passing + (updates if trainer.cpu_offload else 0.0)

    def _model(self, phase: str) -> Architecture:
        return self.needs.architectures["generator.model" if phase == "revise" else "supervision.base_model"]

    def _duration(self, phase: str, seconds: float, rows: float, unit: str, is_whole: bool) -> Duration:
        return Duration(
            phase=phase,
            seconds=seconds,
            rows=round(rows),
            unit=unit,
            is_whole=is_whole,
            gpus=self.needs.num_gpus,
        )
