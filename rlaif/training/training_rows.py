"""Records become training rows: token ids of whole dialogues, cut at turns.

Tokens: answers that the policy sampled go in as the ids that were sampled; only texts that no policy sampled here
(revisions, human pairs, voted answers) are tokenised. Every dialogue ends in exactly one EOS.

A dialogue that is too long loses its oldest turns, as a prompt does when it is served (``tokenization.fit_turns``).
Both answers of a pair keep the same turns. What would lose its last human turn is left out, with its cause, as is a
pair whose dialogues are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.algorithms.preference_model import pretraining_pairs
from rlaif.config.schema import PreferenceModel, Supervision
from rlaif.data.duplicates import prompt_key
from rlaif.errors import RequestError
from rlaif.ids import revision_id, sample_id
from rlaif.prompting.dialogues import Dialogue, DialogueFormat, dialogue
from rlaif.prompting.thoughts import written_answer
from rlaif.prompting.tokenization import encode, fit_whole_turns, prompt_ids
from rlaif.records import Answer, Preference, PreferencePair, RevisionChain, ScoredAnswers, Status, Turn
from rlaif.tasks.sampling import ensure_eos
from rlaif.training.batches import TrainingRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_Ids = Sequence[int]
_Turns = tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A row that is not trained on, and why."""

    id: str
    source_file: str
    source_row: int
    cause: str


class _Unusable(Exception):
    """A row that cannot be trained on; the message is the cause."""


# -------------------------------------------------------------------------------------------------------- SFT
@dataclass(frozen=True, kw_only=True)
class SFTBuilder:
    """Makes the rows of supervision: a prompt and the answer that is learned."""

    tokenizer: PreTrainedTokenizerFast
    dialogue_format: DialogueFormat
    settings: Supervision

    def from_revisions(self, chains: Iterable[RevisionChain]) -> Iterator[TrainingRow | LeftOut]:
        """A row for every revision, or for the last good one of each chain."""
        for chain in chains:
            rounds = list(enumerate(chain.rounds))
            if self.settings.train_on == "final":
                rounds = [(k, round) for k, round in rounds if round.flaw is None][-1:] or rounds[-1:]
            for k, round in rounds:
                id, cause = revision_id(chain.id, k), f"flawed revision: {round.flaw}" if round.flaw else None
                yield self._row(chain, id, chain.prompt, round.revision, cause)
            if not rounds:
                yield self._row(chain, chain.id, chain.prompt, "", chain.error or "no revision")

    def from_samples(self, samples: Iterable[Answer]) -> Iterator[TrainingRow | LeftOut]:
        """A row for every answer of the helpful-only model."""
        for sample in samples:
            cause = sample.error or str(sample.status) if sample.status != Status.OK else None
            if cause is None and sample.finish_reason == "length":
                cause = "the answer was cut off at sampling.max_tokens"
            yield self._row(sample, sample.id, sample.prompt, sample.text, cause)

    def _row(
        self, source: RevisionChain | Answer, id: str, turns: _Turns, text: str, cause: str | None
    ) -> TrainingRow | LeftOut:
        try:
            if cause is not None:
                raise _Unusable(cause)
            form = dialogue(self.dialogue_format, self.tokenizer)
            answer = [*encode(self.tokenizer, form.answer_prefix + text), self.tokenizer.eos_token_id]
            longest = self.settings.max_length
            prompt, cut = _fitted(self.tokenizer, self.dialogue_format, turns, longest - len(answer), "supervision")
        except (_Unusable, RequestError) as unusable:  # RequestError: the chat template refuses the dialogue
            return _left_out(source, id, unusable)
        return {"id": id, "input_ids": [*prompt, *answer], "prompt_length": len(prompt), "cut": cut}


# ------------------------------------------------------------------------------------------- preference pairs
@dataclass(frozen=True, kw_only=True)
class PairBuilder:
    """Makes the rows of the preference model: two whole dialogues, P(first better), a loss weight."""

    tokenizer: PreTrainedTokenizerFast
    dialogue_format: DialogueFormat
    settings: PreferenceModel

    def from_labels(self, labels: Iterable[Preference], probs: Mapping[str, float]) -> Iterator[TrainingRow | LeftOut]:
        """``probs``: P(answer_1 better) by label id, of the labels that are usable."""
        eos = self.tokenizer.eos_token_id
        for label in labels:
            if label.id not in probs:
                yield _left_out(label, label.id, f"its label is {label.status}")
                continue
            answers = [list(ensure_eos(ids, eos)) for ids in (label.token_ids_1, label.token_ids_2)]
            weight = self.settings.harmless_weight
            yield self._pair(label, "harmless", label.prompt, label.prompt_ids, answers, probs[label.id], weight)

    def from_pairs(self, pairs: Iterable[PreferencePair]) -> Iterator[TrainingRow | LeftOut]:
        form = dialogue(self.dialogue_format, self.tokenizer)
        for pair in pairs:
            try:
                prompt = prompt_ids(self.tokenizer, form.prompt(pair.prompt))
                answers = [self._answer(form, text) for text in (pair.chosen, pair.rejected)]
            except (_Unusable, RequestError) as unusable:
                yield _left_out(pair, pair.id, unusable)
                continue
            yield self._pair(pair, "helpful", pair.prompt, prompt, answers, 1.0, 1.0)

    def _answer(self, form: Dialogue, text: str) -> list[int]:
        """The ids of an answer without its thought. Raises _Unusable for one that is only a thought."""
        if not (written := written_answer(text)):
            raise _Unusable("an answer is only a thought")
        return [*encode(self.tokenizer, form.answer_prefix + written), self.tokenizer.eos_token_id]

    def from_votes(self, questions: Iterable[ScoredAnswers]) -> Iterator[TrainingRow | LeftOut]:
        """Neighbours by score; their question is part of the texts."""
        for question in questions:
            for i, texts in enumerate(pretraining_pairs(question)):
                id = sample_id(question.id, i)
                better, worse = ([*prompt_ids(self.tokenizer, text), self.tokenizer.eos_token_id] for text in texts)
                if max(len(better), len(worse)) > self.settings.max_length:
                    yield _left_out(question, id, f"longer than preference_model.max_length={self.settings.max_length}")
                elif better == worse:
                    yield _left_out(question, id, "both answers are the same")
                else:
                    yield _pair_row(id, "votes", question.id, (better, worse), 1.0, 1.0, cut=False)

    def _pair(
        self,
        source: Preference | PreferencePair,
        axis: str,
        turns: _Turns,
        prompt: _Ids,
        answers: Sequence[list[int]],
        prob: float,
        weight: float,
    ) -> TrainingRow | LeftOut:
        """``prompt``: the ids of ``turns``, which stay as they are where they fit."""
        first, second = answers
        room, cut = self.settings.max_length - max(len(first), len(second)), False
        try:
            if first == second:
                raise _Unusable("both answers are the same")
            if len(prompt) > room:
                prompt, cut = _fitted(self.tokenizer, self.dialogue_format, turns, room, "preference_model")
        except _Unusable as unusable:
            return _left_out(source, source.id, unusable)
        dialogues = ([*prompt, *first], [*prompt, *second])
        return _pair_row(source.id, axis, prompt_key(turns), dialogues, prob, weight, cut=cut)


def _pair_row(
    id: str, axis: str, prompt: str, dialogues: tuple[list[int], list[int]], prob: float, weight: float, *, cut: bool
) -> TrainingRow:
    first, second = dialogues
    return {
        "id": id,
        "axis": axis,
        "prompt": prompt,
        "input_ids_1": first,
        "input_ids_2": second,
        "prob": prob,
        "weight": weight,
        "cut": cut,
    }


def _fitted(
    tokenizer: PreTrainedTokenizerFast, format: DialogueFormat, turns: _Turns, room: int, section: str
) -> tuple[list[int], bool]:
    """The ids of the most recent turns that fit, and whether any was dropped. Raises _Unusable."""
    fitted = fit_whole_turns(turns, dialogue(format, tokenizer).prompt, tokenizer, room)
    if fitted is None:
        raise _Unusable(f"its last human turn and answer, with any system turn, are longer than {section}.max_length")
    kept, ids = fitted
    return ids, len(kept) < len(turns)


def _left_out(
    source: RevisionChain | Answer | Preference | PreferencePair | ScoredAnswers, id: str, cause: object
) -> LeftOut:
    return LeftOut(id=id, source_file=source.source_file, source_row=source.source_row, cause=str(cause))
