"""Every text that is put to a model, in one place, but the two-choice question (``questions``).

Source: Constitutional AI (arXiv 2212.08073), section 3.1 and appendix C for the shape of critique and revision
requests; the wordings are ours.

Two dialogue formats, chosen once per run (``dialogue_format``): ``human_assistant`` for base models and
``chat_template`` for models whose tokenizer carries one. A prompt always ends where the answer begins; the answer
follows with ``answer_prefix`` in front and the EOS behind it, identically in SFT, PM training, evaluation and RL.

Few-shot examples stand before a critique, a revision or a question in the form of what they are examples of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rlaif.constitution.principles import Principle
from rlaif.errors import ModelError
from rlaif.prompting.examples import LabelExample, RevisionExample
from rlaif.prompting.questions import LETTERS, RATING, SPEAKERS, THINK, Ours, Part, QuestionTemplate
from rlaif.prompting.tokenization import ControlText, Pieces, neutral
from rlaif.records import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DialogueFormat = Literal["human_assistant", "chat_template"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A two-choice question, ready to be laid out: ``rationale`` None asks for the letter at once."""

    template: QuestionTemplate
    turns: Sequence[Turn]
    comparison: str
    slot_a: str
    slot_b: str
    examples: Sequence[LabelExample] = ()

    def parts(self) -> Iterator[Part]:
        answers = {"answer_a": self.slot_a, "answer_b": self.slot_b}
        return self.template.question(self.turns, self.comparison, answers)


@dataclass(frozen=True, kw_only=True)
class RatingQuestion:
    """How good one answer is, from 1 to 10."""

    turns: Sequence[Turn]
    comparison: str
    answer: str
    template: QuestionTemplate = RATING
    examples: tuple[LabelExample, ...] = ()

    def parts(self) -> Iterator[Part]:
        return self.template.question(self.turns, self.comparison, {"answer": self.answer})


Asked = Question | RatingQuestion


class Dialogue(Protocol):
    """How turns become text."""

    @property
    def answer_prefix(self) -> str:
        """What stands between the prompt and the answer."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer of a model that does not emit EOS."""
        ...

    def prompt(self, turns: Sequence[Turn]) -> str: ...

    def critique(
        self, turns: Sequence[Turn], answer: str, principle: Principle, examples: Sequence[RevisionExample] = ()
    ) -> str: ...

    def revision(
        self,
        turns: Sequence[Turn],
        answer: str,
        principle: Principle,
        critique: str | None,
        examples: Sequence[RevisionExample] = (),
    ) -> str: ...

    def choice(self, question: Asked, rationale: str | None = None) -> Pieces:
        """The question up to where the letter (or the rating) is due, after ``rationale`` when there is one."""
        ...

    def reasoning(self, question: Asked) -> Pieces:
        """The question up to where the labeller is to reason."""
        ...


@dataclass(frozen=True)
class HumanAssistant:
    """``\\n\\nHuman: `` / ``\\n\\nAssistant: `` turns, for base models."""

    answer_prefix: str = " "
    stop: tuple[str, ...] = ("\n\nHuman:", "\n\nCritique Request:", "\n\nRevision Request:")

    def conversation(self, turns: Sequence[Turn]) -> str:
        return "".join(f"\n\n{SPEAKERS[turn.role]}: {_said(turn.text)}" for turn in turns)

    def prompt(self, turns: Sequence[Turn]) -> str:
        return f"{self.conversation(turns)}\n\nAssistant:"

    def critique(
        self, turns: Sequence[Turn], answer: str, principle: Principle, examples: Sequence[RevisionExample] = ()
    ) -> str:
        return f"{self._examples(examples)}{self._critique(turns, answer, principle)}"

    def revision(
        self,
        turns: Sequence[Turn],
        answer: str,
        principle: Principle,
        critique: str | None,
        examples: Sequence[RevisionExample] = (),
    ) -> str:
        if critique is None:
            before = f"{self.prompt(turns)} {_said(answer)}"
        else:
            before = f"{self._critique(turns, answer, principle)} {_said(critique)}"
        return f"{self._examples(examples)}{before}\n\nRevision Request: {principle.revision_request}\n\nRevision:"

    def _critique(self, turns: Sequence[Turn], answer: str, principle: Principle) -> str:
        return f"{self.prompt(turns)} {_said(answer)}\n\nCritique Request: {principle.critique_request}\n\nCritique:"

    def _examples(self, examples: Sequence[RevisionExample]) -> str:
        return "".join(
            f"{self.prompt(example.turns)} {example.response}"
            f"\n\nCritique Request: {example.critique_request}\n\nCritique: {example.critique}"
            f"\n\nRevision Request: {example.revision_request}\n\nRevision: {example.revision}\n\n###"
            for example in examples
        )

    def choice(self, question: Asked, rationale: str | None = None) -> Pieces:
        closing = question.template.closing
        if rationale is None:
            return Pieces([*self._asked(question, think=False), closing])
        return Pieces([*self.reasoning(question), f" {question.template.defused(rationale)}", closing])

    def reasoning(self, question: Asked) -> Pieces:
        return Pieces([*self._asked(question, think=True), THINK])

    def _asked(self, question: Asked, think: bool) -> Iterator[str]:
        for example in question.examples:
            yield from _texts(example.parts(question.template))
            thought = f"{THINK} {example.reasoning}" if think and example.reasoning else ""
            yield f"{thought}{question.template.closing}{LETTERS[example.slot]}\n\n"
        yield from _texts(question.parts())


#: What begins a paragraph of a transcript, and so must not begin one of a turn.
HEADING = re.compile(r"(\n\s*(?:Human|Assistant|Critique Request|Critique|Revision Request|Revision)\s*):")


def _said(text: str) -> str:
    """``text`` with a dash for the colon of a line that reads like a heading: a turn cannot begin another one."""
    return HEADING.sub(r"\1 -", text) if "\n" in text else text


def _texts(parts: Iterable[Part]) -> Iterator[str]:
    """The texts of ``parts``, neighbours of ours joined, so that they are tokenised as written."""
    ours = ""
    for part in parts:
        if isinstance(part, Ours):
            ours += part.text
        else:
            yield from (ours, part.text)
            ours = ""
    if ours:
        yield ours


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template; critique and revision requests are further user turns.

    Only the template's control tokens count: special tokens inside turns are broken up (``data.tokenization``).
    """

    tokenizer: PreTrainedTokenizerFast
    answer_prefix: str = ""
    stop: tuple[str, ...] = ()

    def _render(self, messages: Sequence[tuple[str, str]]) -> ControlText:
        rendered = self.tokenizer.apply_chat_template(
            [{"role": role, "content": neutral(self.tokenizer, text)} for role, text in messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        return ControlText(rendered)

    def _messages(self, turns: Sequence[Turn]) -> list[tuple[str, str]]:
        return [("user" if turn.role == "human" else "assistant", turn.text) for turn in turns]

    def prompt(self, turns: Sequence[Turn]) -> str:
        return self._render(self._messages(turns))

    def critique(
        self, turns: Sequence[Turn], answer: str, principle: Principle, examples: Sequence[RevisionExample] = ()
    ) -> str:
        assert principle.critique_request is not None
        asked = [*self._messages(turns), ("assistant", answer), ("user", principle.critique_request)]
        return self._render([*self._examples(examples), *asked])

    def revision(
        self,
        turns: Sequence[Turn],
        answer: str,
        principle: Principle,
        critique: str | None,
        examples: Sequence[RevisionExample] = (),
    ) -> str:
        assert principle.critique_request is not None and principle.revision_request is not None
        messages = [*self._examples(examples), *self._messages(turns), ("assistant", answer)]
        if critique is not None:
            messages += [("user", principle.critique_request), ("assistant", critique)]
        return self._render([*messages, ("user", principle.revision_request)])

    def _examples(self, examples: Sequence[RevisionExample]) -> Iterator[tuple[str, str]]:
        for example in examples:
            yield from self._messages(example.turns)
            yield "assistant", example.response
            yield "user", example.critique_request
            yield "assistant", example.critique
            yield "user", example.revision_request
            yield "assistant", example.revision

    def choice(self, question: Asked, rationale: str | None = None) -> Pieces:
        closing = question.template.closing.lstrip("\n")
        if rationale is None:
            asked = self._asked(question, think=False)
            return Pieces([*asked[:-1], asked[-1].followed_by(closing)])
        reasoned = f"{question.template.defused(rationale)}\n\n"
        return Pieces([*self.reasoning(question), reasoned, ControlText(closing)])

    def reasoning(self, question: Asked) -> Pieces:
        return Pieces(self._asked(question, think=True))

    def _asked(self, question: Asked, think: bool) -> list[Any]:
        """The rendered question, cut where texts of others stand; it ends with the template's invitation to answer."""
        texts: list[str] = []
        messages = []
        for example in question.examples:
            messages.append(("user", self._marked(example.parts(question.template), texts, think)))
            thought = f"{example.reasoning}\n\n" if think and example.reasoning else ""
            answer = f"{question.template.closing.strip()}{LETTERS[example.slot]}"
            messages.append(("assistant", thought + answer))
        messages.append(("user", self._marked(question.parts(), texts, think)))
        return self._filled(self._render(messages), texts)

    def _marked(self, parts: Iterable[Part], texts: list[str], think: bool) -> str:
        """The parts as one text with a mark for each text of others, which is added to ``texts``."""
        marked = ""
        for part in parts:
            if isinstance(part, Ours):
                marked += part.text
            else:
                marked += MARK.format(len(texts))
                texts.append(part.text)
        return marked.strip() + (THINK if think else "")

    def _filled(self, rendered: str, texts: Sequence[str]) -> list[Any]:
        pieces = re.split(MARK.format(r"(\d+)"), rendered)
        if [int(number) for number in pieces[1::2]] != list(range(len(texts))):
            raise ModelError("the tokenizer's chat template drops, repeats or reorders parts of a message")
        filled: list[Any] = [ControlText(piece) for piece in pieces]
        filled[1::2] = texts
        return filled


MARK = "\ue000{}\ue001"  #: private-use characters around a number: where a text of others goes


def dialogue(format: DialogueFormat, tokenizer: PreTrainedTokenizerFast) -> Dialogue:
    """The dialogue format of a run, for one model's tokenizer."""
    return HumanAssistant() if format == "human_assistant" else ChatTemplate(tokenizer)
