"""The rows that a configuration names: prompts, human pairs, voted answers, pairs to be labelled.

Bad rows are booked when ``stages.sources`` reads a source; whoever reads it afterwards passes over them. No training
row has a prompt of the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from rlaif.config.keys import SUITE_KEYS
from rlaif.config.schema import Config
from rlaif.config.source import RowLimits, Source
from rlaif.data.comparisons import read_comparisons
from rlaif.data.duplicates import prompt_key
from rlaif.data.finished_answers import read_finished_answers
from rlaif.data.pairs import read_pairs
from rlaif.data.prompts import read_prompts
from rlaif.data.rows import Quarantine, pass_over
from rlaif.data.suites import read_suite
from rlaif.data.votes import read_votes
from rlaif.prompting.chat_templates import has_system_role
from rlaif.prompting.dialogues import chat_format
from rlaif.prompting.formats import FormatRole, format_of
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import (
    Axis,
    Comparison,
    PreferencePair,
    Prompt,
    Quarantined,
    ScoredAnswers,
    SuiteAnswer,
    SuiteName,
    SuitePrompt,
    Turn,
)
from rlaif.storage.changes import RowToRecord

_RowT = TypeVar("_RowT", bound=RowToRecord)
_PromptT = TypeVar("_PromptT", bound=Prompt)
AXES: tuple[Axis, ...] = ("red_team", "helpful")


@dataclass(frozen=True, kw_only=True)
class UserData:
    """``paths`` says where each ``miniature:NAME`` is; any other source or model is its own path."""

    config: Config
    paths: Mapping[str, Path]

    @property
    def _limits(self) -> RowLimits:
        return self.config.data.limits

    def path(self, name: str) -> str:
        return str(self.paths.get(name, name))

    def source(self, source: Source | None) -> Source:
        """``source``, with the path at which it is."""
        assert source is not None  # whoever reads a source has looked whether there is one
        return source.model_copy(update={"path": self.path(source.path)})

    def prompts(self, axis: Axis, quarantine: Quarantine = pass_over) -> Iterator[Prompt]:
        """The training prompts of one axis, without those of the evaluation."""
        source = self.config.data.red_team if axis == "red_team" else self.config.data.helpful
        return self._training(self._prompts(source, axis, quarantine), lambda prompt: prompt.turns, quarantine)

    def held_out_prompts(self, axis: Axis, quarantine: Quarantine = pass_over) -> Iterator[Prompt]:
        """The evaluation's prompts of one axis."""
        source = self.config.evaluation.red_team if axis == "red_team" else self.config.evaluation.helpful
        return self._prompts(source, axis, quarantine)

    def suite_prompts(self, suite: SuiteName, quarantine: Quarantine = pass_over) -> Iterator[SuitePrompt]:
        """The prompts of a test suite that the configuration names."""
        source = getattr(self.config.evaluation.suites, suite)
        return self._as_asked(read_suite(suite, self.source(source), quarantine, self._limits), quarantine)

    def finished_answers(self, quarantine: Quarantine = pass_over) -> Iterator[SuiteAnswer]:
        """The answers of ``evaluation.answers``."""
        return read_finished_answers(self.source(self.config.evaluation.answers), quarantine, self._limits)

    def pairs(self, quarantine: Quarantine = pass_over) -> Iterator[PreferencePair]:
        """The human pairs of ``data.helpful_pairs``, without those about prompts of the evaluation."""
        read = read_pairs(self.source(self.config.data.helpful_pairs), quarantine, self._limits)
        whole = (replace(pair, prompt=self._after_system_prompt(pair.prompt)) for pair in read)
        pairs = self._renderable(whole, lambda pair: pair.prompt, quarantine)
        return self._training(pairs, lambda pair: pair.prompt, quarantine)

    def votes(self, quarantine: Quarantine = pass_over) -> Iterator[ScoredAnswers]:
        """The questions of ``data.votes``, without those of the evaluation."""
        votes = read_votes(self.source(self.config.data.votes), quarantine, self._limits)
        return self._training(votes, lambda question: (Turn(role="human", text=question.question),), quarantine)

    def comparisons(self, quarantine: Quarantine = pass_over) -> Iterator[Comparison]:
        """The pairs of answers of ``data.comparisons``."""
        return read_comparisons(self.source(self.config.data.comparisons), quarantine, self._limits)

    def _prompts(self, source: Source, axis: Axis, quarantine: Quarantine) -> Iterator[Prompt]:
        """Prompts of a source; those of the miniature name it as their file, wherever its files are cached."""
        here = self.source(source)
        prompts = self._as_asked(read_prompts(here, axis, quarantine, self._limits), quarantine)
        return prompts if here == source else (replace(prompt, source_file=source.path) for prompt in prompts)

    def _as_asked(self, prompts: Iterator[_PromptT], quarantine: Quarantine) -> Iterator[_PromptT]:
        whole = (replace(prompt, turns=self._after_system_prompt(prompt.turns)) for prompt in prompts)
        return self._renderable(whole, lambda prompt: prompt.turns, quarantine)

    def _after_system_prompt(self, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """``turns`` after ``data.system_prompt``, if that is set and they have no system turn of their own."""
        text = self.config.data.system_prompt
        return turns if text is None or turns[0].role == "system" else (Turn(role="system", text=text), *turns)

    def _training(
        self, rows: Iterator[_RowT], prompt_of: Callable[[_RowT], tuple[Turn, ...]], quarantine: Quarantine
    ) -> Iterator[_RowT]:
        """``rows`` without those whose prompt is one of the evaluation's, near-duplicates included."""
        for row in rows:
            held_out = self._held_out.get(prompt_key(prompt_of(row)))
            if held_out is None:
                yield row
                continue
            cause = f"its prompt is one of {held_out}, which must not be trained on"
            quarantine(Quarantined(id=row.id, file=row.source_file, row=row.source_row, kind="read", cause=cause))

    def _renderable(
        self, rows: Iterator[_RowT], prompt_of: Callable[[_RowT], tuple[Turn, ...]], quarantine: Quarantine
    ) -> Iterator[_RowT]:
        """``rows`` without those whose system turn is refused (``system_turns``)."""
        for row in rows:
            model = self._model_without_system_role if prompt_of(row)[0].role == "system" else None
            if model is None:
                yield row
                continue
            cause = f"has a system turn, for which the chat template of {model} has no role (system_turns=refuse)"
            quarantine(Quarantined(id=row.id, file=row.source_file, row=row.source_row, kind="read", cause=cause))

    @cached_property
    def _model_without_system_role(self) -> str | None:
        """The first model whose chat template has no place for a system turn, if that is to be refused."""
        if self.config.system_turns == "merge":
            return None
        models: dict[FormatRole, str] = {
            "generator": self.config.generator.model,
            "policy": self.config.supervision.base_model,
        }
        return next((model for role, model in models.items() if not self._has_system_role(role, model)), None)

    def _has_system_role(self, role: FormatRole, model: str) -> bool:
        format = format_of(self.config, role)
        return format == "human_assistant" or has_system_role(load_tokenizer(self.path(model)), chat_format(format))

    @cached_property
    def _held_out(self) -> dict[str, str]:
        """The evaluation's prompts by their keys, and the source that each is from."""
        suites = {
            prompt_key(prompt.turns): key
            for suite, key in SUITE_KEYS.items()
            if getattr(self.config.evaluation.suites, suite) is not None
            for prompt in self.suite_prompts(suite)
        }
        held_out = {
            prompt_key(prompt.turns): f"evaluation.{axis}" for axis in AXES for prompt in self.held_out_prompts(axis)
        }
        return {**suites, **held_out}
