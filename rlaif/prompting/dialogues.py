"""Dialogue formats: how turns, critiques, revisions and questions (``questions``) become the text of a prompt.

Source: Constitutional AI (arXiv 2212.08073), section 3.1 and appendix C for the shape of critique and revision
requests; the wording is ours.

There are two formats, and each role of a run uses one (``formats``): ``human_assistant`` for base models, and
``chat_template`` for models whose tokenizer has one. A prompt always ends where the answer begins; the answer is
prefixed with ``answer_prefix`` and ends with the EOS, identically in SFT, PM training, evaluation and RL.

Few-shot examples precede a critique, a revision or a question, in the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from rlaif.config.schema import FormatName
from rlaif.constitution.principles import Principle
from rlaif.prompting.chat_templates import (
    DEFAULT_FORMAT,
    ChatFormat,
    Message,
    answer_prefix,
    break_delimiters,
    gaps,
    has_system_role,
    layout,
)
from rlaif.prompting.examples import RevisionExample
from rlaif.prompting.questions import LETTERS, SPEAKERS, THINK, FeedbackQuestion, QuestionPart, TrustedText
from rlaif.prompting.thoughts import heard, opens_thought
from rlaif.prompting.tokenization import ControlText, Pieces, append_text, neutralize
from rlaif.records import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: ``chat_template`` by name is the tokenizer's own template, as ``ChatFormat()`` renders it.
DialogueFormat = FormatName | ChatFormat

#: ``HumanAssistant`` as a chat template, so that a model trained on it can be served.
HUMAN_ASSISTANT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set speaker = {'system': 'System', 'assistant': 'Assistant'}.get(message.role, 'Human') %}"
    "{{ '\\n\\n' ~ speaker ~ ': ' ~ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)


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

    @property
    def opens_thought(self) -> bool:
        """Whether answers, critiques and revisions begin inside a thought that the prompt has opened."""
        ...

    def prompt(self, turns: Sequence[Turn]) -> str | Pieces: ...

    def critique(
        self, turns: Sequence[Turn], answer: str, principle: Principle, examples: Sequence[RevisionExample] = ()
    ) -> str | Pieces: ...

    def revision(
        self,
        turns: Sequence[Turn],
        answer: str,
        principle: Principle,
        critique: str | None,
        examples: Sequence[RevisionExample] = (),
    ) -> str | Pieces: ...

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
    opens_thought: bool = False

    def conversation(self, turns: Sequence[Turn]) -> str:
        return "".join(f"\n\n{SPEAKERS[turn.role]}: {_said(heard(turn))}" for turn in turns)

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


#: What begins a paragraph of a transcript, and so must not begin a paragraph within a turn. Of the white space before
#: it, only the last line matters.
HEADING = re.compile(r"(\n[^\S\n]*(?:System|Human|Assistant|Critique Request|Critique|Revision Request|Revision)\s*):")


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
    """A chat template; critique and revision requests are further user turns.

    Only the template's control tokens are parsed as such, and no text can forge its delimiters (``chat_templates``).
    Questions to the labeller never leave a thought open: the letter must not be asked for inside one.
    """

    tokenizer: PreTrainedTokenizerFast
    format: ChatFormat = DEFAULT_FORMAT
    stop: tuple[str, ...] = ()

    @cached_property
    def answer_prefix(self) -> str:
        return answer_prefix(self.tokenizer, self.format)

    @cached_property
    def opens_thought(self) -> bool:
        return opens_thought(gaps(self.tokenizer, self.format, ("user",))[-1])

    def _render(self, messages: Sequence[Message]) -> Pieces:
        ordered = sorted(messages, key=lambda message: message[0] != "system")  # above examples, too
        return layout(self.tokenizer, self.format, ordered)

    def _messages(self, turns: Sequence[Turn]) -> list[Message]:
        """``turns`` by the names that templates use. Where the template has no place for a system turn, the user says
        it, and so it is joined to the human turn that follows."""
        system = "system" if has_system_role(self.tokenizer, self.format) else "user"
        roles = {"system": system, "human": "user", "assistant": "assistant"}
        return [(roles[turn.role], heard(turn)) for turn in turns]

    def prompt(self, turns: Sequence[Turn]) -> Pieces:
        return self._render(self._messages(turns))

    def critique(
        self, turns: Sequence[Turn], answer: str, principle: Principle, examples: Sequence[RevisionExample] = ()
    ) -> Pieces:
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
    ) -> Pieces:
        assert principle.critique_request is not None and principle.revision_request is not None
        messages = [*self._examples(examples), *self._messages(turns), ("assistant", answer)]
        if critique is not None:
            messages += [("user", principle.critique_request), ("assistant", critique)]
        return self._render([*messages, ("user", principle.revision_request)])

    def _examples(self, examples: Sequence[RevisionExample]) -> Iterator[Message]:
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
        reasoned = f"{break_delimiters(self.tokenizer, self.format, question.template.defuse(rationale))}\n\n"
        return Pieces([*self.reasoning(question), reasoned, ControlText(closing)])

    def reasoning(self, question: FeedbackQuestion) -> Pieces:
        return self._asked(question, think=True)

    def _asked(self, question: FeedbackQuestion, think: bool) -> Pieces:
        """The rendered question, with each untrusted text as a piece of its own, and a closed thought.

        The last piece is ControlText: it ends with the chat template's invitation to answer.
        """
        messages: list[Message] = []
        for example in question.examples:
            messages.append(("user", self._said(question.template.fill_example(example), think)))
            thought = f"{example.reasoning}\n\n" if think and example.reasoning else ""
            answer = f"{question.template.closing.strip()}{LETTERS[example.slot]}"
            messages.append(("assistant", self._said([TrustedText(thought + answer)], think=False)))
        messages.append(("user", self._said(question.parts(), think)))
        return layout(self.tokenizer, replace(self.format, may_think=False), messages)

    def _said(self, parts: Iterable[QuestionPart], think: bool) -> Pieces:
        """The parts as one message: fixed texts as ControlText, with the names of special tokens broken."""
        pieces = [
            ControlText(neutralize(self.tokenizer, part.text)) if isinstance(part, TrustedText) else part.text
            for part in parts
        ]
        if isinstance(pieces[0], ControlText):
            pieces[0] = ControlText(pieces[0].lstrip())
        if isinstance(pieces[-1], ControlText):
            pieces[-1] = ControlText(pieces[-1].rstrip())
        return Pieces([*pieces, ControlText(THINK if think else "")])


def dialogue(format: DialogueFormat, tokenizer: PreTrainedTokenizerFast) -> Dialogue:
    """A dialogue format for one model's tokenizer."""
    return HumanAssistant() if format == "human_assistant" else ChatTemplate(tokenizer, chat_format(format))


def chat_format(format: DialogueFormat) -> ChatFormat:
    """A format other than ``human_assistant``, in full."""
    return format if isinstance(format, ChatFormat) else DEFAULT_FORMAT
