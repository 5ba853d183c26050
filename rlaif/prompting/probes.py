"""A dialogue of every kind that a run will render, rendered before anything is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif.errors import ModelError, RequestError
from rlaif.prompting.chat_templates import ChatFormat, gaps, layout
from rlaif.prompting.tokenization import prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: By the roles of their messages. A request for a critique is a user's message, and so is one for a revision.
PROBES: tuple[tuple[str, ...], ...] = (
    ("user",),
    ("user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
    ("user", "user", "assistant", "assistant", "user"),
)


def template_mistake(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> str | None:
    """What keeps dialogues from being rendered with a chat template, or None."""
    if format.template is None and not tokenizer.chat_template:
        return "its tokenizer has no chat template"
    try:
        for roles in PROBES:
            messages = [(role, f"message {number}") for number, role in enumerate(roles)]
            prompt_ids(tokenizer, layout(tokenizer, format, messages))
        return _lack(tokenizer, format)
    except (RequestError, ModelError) as error:
        return str(error)


def _lack(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> str | None:
    """What a template that renders everything still does not write."""
    _, before_answer, after_answer, _ = gaps(tokenizer, format, ("user", "assistant", "user"))
    if before_answer == after_answer:
        return "the chat template does not tell roles apart"
    uninvited, invited = (gaps(tokenizer, format, ("user",), invites)[-1] for invites in (False, True))
    if invited == uninvited and invited.strip() != before_answer.strip():
        return "the chat template does not invite an answer (it ignores add_generation_prompt)"
    return None
