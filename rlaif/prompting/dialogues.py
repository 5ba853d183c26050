"""Dialogue formats: how turns, critiques, revisions and questions (``questions``) become the text of a prompt.

Source: Constitutional AI (arXiv 2212.08073), section 3.1 and appendix C for the shape of critique and revision
requests; the wording is ours.

There are two formats, and a run uses one (``dialogue_format``): ``human_assistant`` for base models, and
``chat_template`` for models whose tokenizer has one. A prompt always ends where the answer begins; the answer is
prefixed with ``answer_prefix`` and ends with the EOS, identically in SFT, PM training, evaluation and RL.

Few-shot examples precede a critique, a revision or a question, in the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from rlaif.constitution.principles import Principle
from rlaif.errors import ModelError
from rlaif.prompting.examples import RevisionExample
from rlaif.prompting.questions import LETTERS, SPEAKERS, THINK, FeedbackQuestion, QuestionPart, TrustedText
from rlaif.prompting.tokenization import ControlText, Pieces, append_text, neutralize
from rlaif.records import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DialogueFormat = Literal["human_assistant", "chat_template"]


class Dialogue(Protocol):
    """How turns become text. Every method returns a prompt, up to where the model's answer begins."""

    @property
    def answer_prefix(self) -> str:
        """The text between a prompt and its answer."""
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

    def choice(self, question: FeedbackQuestion, rationale: str | None = None) -> Pieces:
        """The question up to where the letter (or the rating) follows, after ``rationale`` when there is one."""
        ...

    def reasoning(self, question: FeedbackQuestion) -> Pieces:
        """The question up to where the labeller's reasoning follows."""
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

    def choice(self, question: FeedbackQuestion, rationale: str | None = None) -> Pieces:
        closing = question.template.closing
        if rationale is None:
            return Pieces([*self._asked(question, think=False), closing])
        return Pieces([*self.reasoning(question), f" {question.template.defuse(rationale)}", closing])

    def reasoning(self, question: FeedbackQuestion) -> Pieces:
        return Pieces([*self._asked(question, think=True), THINK])

    def _asked(self, question: FeedbackQuestion, think: bool) -> Iterator[str]:
        for example in question.examples:
            yield from _texts(question.template.fill_example(example))
            thought = f"{THINK} {example.reasoning}" if think and example.reasoning else ""
            yield f"{thought}{question.template.closing}{LETTERS[example.slot]}\n\n"
        yield from _texts(question.parts())


#: What begins a paragraph of a transcript, and so must not begin a paragraph within a turn.
HEADING = re.compile(r"(\n\s*(?:Human|Assistant|Critique Request|Critique|Revision Request|Revision)\s*):")


def _said(text: str) -> str:
    """``text`` with the colons of headings replaced by dashes, so that a turn cannot begin another one."""
    return HEADING.sub(r"\1 -", text) if "\n" in text else text


def _texts(parts: Iterable[QuestionPart]) -> Iterator[str]:
    """The texts of ``parts``, adjacent trusted ones joined, so that they are tokenized as written."""
    trusted = ""
    for part in parts:
        if isinstance(part, TrustedText):
            trusted += part.text
        else:
            yield from (trusted, part.text)
            trusted = ""
    if trusted:
        yield trusted


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template; critique and revision requests are further user turns.

    Only the template's control tokens are parsed as such: special tokens inside turns are broken up (``tokenization``).
    """

    tokenizer: PreTrainedTokenizerFast
    answer_prefix: str = ""
    stop: tuple[str, ...] = ()

    def _render(self, messages: Sequence[tuple[str, str]]) -> ControlText:
        rendered = self.tokenizer.apply_chat_template(
            [{"role": role, "content": neutralize(self.tokenizer, text)} for role, text in messages],
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

    def choice(self, question: FeedbackQuestion, rationale: str | None = None) -> Pieces:
        closing = question.template.closing.lstrip("\n")
        if rationale is None:
            *before, invitation = self._asked(question, think=False)
            return Pieces([*before, append_text(invitation, closing)])
        reasoned = f"{question.template.defuse(rationale)}\n\n"
        return Pieces([*self.reasoning(question), reasoned, ControlText(closing)])

    def reasoning(self, question: FeedbackQuestion) -> Pieces:
        return Pieces(self._asked(question, think=True))

    def _asked(self, question: FeedbackQuestion, think: bool) -> list[str]:
        """The rendered question, with each untrusted text as a piece of its own.

        The last piece is ControlText: it ends with the chat template's invitation to answer.
        """
        texts: list[str] = []
        messages = []
        for example in question.examples:
            messages.append(("user", self._marked(question.template.fill_example(example), texts, think)))
            thought = f"{example.reasoning}\n\n" if think and example.reasoning else ""
            answer = f"{question.template.closing.strip()}{LETTERS[example.slot]}"
            messages.append(("assistant", thought + answer))
        messages.append(("user", self._marked(question.parts(), texts, think)))
        return self._filled(self._render(messages), texts)

    def _marked(self, parts: Iterable[QuestionPart], texts: list[str], think: bool) -> str:
        """The parts as one text, with a mark in place of each untrusted text, which is appended to ``texts``."""
        marked = ""
        for part in parts:
            if isinstance(part, TrustedText):
                marked += part.text
            else:
                marked += MARK.format(len(texts))
                texts.append(part.text)
        return marked.strip() + (THINK if think else "")

    def _filled(self, rendered: str, texts: Sequence[str]) -> list[str]:
        pieces = re.split(MARK.format(r"(\d+)"), rendered)
        if [int(number) for number in pieces[1::2]] != list(range(len(texts))):
            raise ModelError("the tokenizer's chat template drops, repeats or reorders parts of a message")
        filled: list[str] = [ControlText(piece) for piece in pieces]
        filled[1::2] = texts
        return filled


MARK = "\ue000{}\ue001"  #: private-use characters around the number of an untrusted text


def dialogue(format: DialogueFormat, tokenizer: PreTrainedTokenizerFast) -> Dialogue:
    """The dialogue format of a run, for one model's tokenizer."""
    return HumanAssistant() if format == "human_assistant" else ChatTemplate(tokenizer)
