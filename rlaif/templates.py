"""Every text that is put to a model, in one place. Change a word here and ``TEMPLATE_VERSION`` must change.

Source: Constitutional AI (arXiv 2212.08073), section 3.1 and appendix C for the shape of critique and revision
requests, section 4.1 for the two-choice question; the wordings are ours.

Two dialogue formats, chosen once per run (``dialogue_format``): ``human_assistant`` for base models and
``chat_template`` for models whose tokenizer carries one. A prompt always ends where the answer begins; the answer
follows with ``answer_prefix`` in front and the EOS behind it, identically in SFT, PM training, evaluation and RL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rlaif.constitution import Principle
from rlaif.data.tokenization import ControlText, neutral
from rlaif.records import Turn

TEMPLATE_VERSION = "1"
LETTERS = (" (A)", " (B)")  #: what may follow "The answer is:"

DialogueFormat = Literal["human_assistant", "chat_template"]


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

    def critique(self, turns: Sequence[Turn], answer: str, principle: Principle) -> str: ...

    def revision(self, turns: Sequence[Turn], answer: str, principle: Principle, critique: str | None) -> str: ...

    def choice(self, turns: Sequence[Turn], principle: Principle, slot_a: str, slot_b: str) -> str: ...


def choice_question(conversation: str, comparison: str, slot_a: str, slot_b: str) -> str:
    """The two-choice question. The conversation stands first, so that principles and both orders share a prefix."""
    return (
        "Consider the following conversation between a human and an assistant:"
        f"{conversation}\n\n{comparison}\n\nOptions:\n(A) {slot_a}\n(B) {slot_b}\n\nThe answer is:"
    )


def principle_question(principle: Sequence[str], question: str, slot_a: str, slot_b: str) -> str:
    """A question about a principle's texts, for the lint. No label contains it, so ``TEMPLATE_VERSION`` is not its."""
    texts = "\n".join(principle)
    return (
        f"Consider the following principle for an AI assistant:\n{texts}\n\n{question}\n\n"
        f"Options:\n(A) {slot_a}\n(B) {slot_b}\n\nThe answer is:"
    )


@dataclass(frozen=True)
class HumanAssistant:
    """``\\n\\nHuman: `` / ``\\n\\nAssistant: `` turns, for base models."""

    answer_prefix: str = " "
    stop: tuple[str, ...] = ("\n\nHuman:", "\n\nCritique Request:", "\n\nRevision Request:")

    def conversation(self, turns: Sequence[Turn]) -> str:
        names = {"human": "Human", "assistant": "Assistant"}
        return "".join(f"\n\n{names[turn.role]}: {turn.text}" for turn in turns)

    def prompt(self, turns: Sequence[Turn]) -> str:
        return f"{self.conversation(turns)}\n\nAssistant:"

    def critique(self, turns: Sequence[Turn], answer: str, principle: Principle) -> str:
        return f"{self.prompt(turns)} {answer}\n\nCritique Request: {principle.critique_request}\n\nCritique:"

    def revision(self, turns: Sequence[Turn], answer: str, principle: Principle, critique: str | None) -> str:
        if critique is None:
            before = f"{self.prompt(turns)} {answer}"
        else:
            before = f"{self.critique(turns, answer, principle)} {critique}"
        return f"{before}\n\nRevision Request: {principle.revision_request}\n\nRevision:"

    def choice(self, turns: Sequence[Turn], principle: Principle, slot_a: str, slot_b: str) -> str:
        assert principle.comparison is not None
        return choice_question(self.conversation(turns), principle.comparison, slot_a, slot_b)


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template; critique and revision requests are further user turns.

    Only the template's control tokens count: special tokens inside turns are broken up (``data.tokenization``).
    """

    tokenizer: Any
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

    def critique(self, turns: Sequence[Turn], answer: str, principle: Principle) -> str:
        assert principle.critique_request is not None
        return self._render([*self._messages(turns), ("assistant", answer), ("user", principle.critique_request)])

    def revision(self, turns: Sequence[Turn], answer: str, principle: Principle, critique: str | None) -> str:
        assert principle.critique_request is not None and principle.revision_request is not None
        messages = [*self._messages(turns), ("assistant", answer)]
        if critique is not None:
            messages += [("user", principle.critique_request), ("assistant", critique)]
        return self._render([*messages, ("user", principle.revision_request)])

    def choice(self, turns: Sequence[Turn], principle: Principle, slot_a: str, slot_b: str) -> str:
        assert principle.comparison is not None
        question = choice_question(
            HumanAssistant().conversation(turns), principle.comparison, slot_a, slot_b
        ).removesuffix("The answer is:")
        return self._render([("user", question.rstrip())]).followed_by("The answer is:")


def dialogue(format: DialogueFormat, tokenizer: Any) -> Dialogue:
    """The dialogue format of a run, for one model's tokenizer."""
    return HumanAssistant() if format == "human_assistant" else ChatTemplate(tokenizer)
