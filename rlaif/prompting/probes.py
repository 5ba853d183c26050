"""A dialogue of every kind that a run will render, rendered before anything is paid for."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from rlaif.errors import ModelError, RequestError
from rlaif.prompting import template_trial
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
#: Of the rendering of all probes. Templates of public models need milliseconds, and write some thousand characters.
MAX_TRIAL_S, MAX_TRIAL_BYTES, MAX_TRIAL_CHARS = 5, 512 << 20, 200_000
WAIT_FOR_TRIAL_S = 120.0  #: on a busy machine


def template_mistake(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> str | None:
    """What keeps dialogues from being rendered with a chat template, or None."""
    if format.template is None and not tokenizer.chat_template:
        return "its tokenizer has no chat template"
    if (excess := template_excess(tokenizer, format)) is not None:
        return excess
    try:
        for roles in PROBES:
            messages = [(role, f"message {number}") for number, role in enumerate(roles)]
            prompt_ids(tokenizer, layout(tokenizer, format, messages))
        return _lack(tokenizer, format)
    except (RequestError, ModelError) as error:
        return str(error)


def template_excess(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> str | None:
    """What keeps a chat template from being rendered in this process, or None. A template is a program, which may ask
    for any time and memory."""
    try:
        template = tokenizer.get_chat_template(format.template)
    except Exception:  # one that is none, which its rendering says
        return None
    variables = {**tokenizer.special_tokens_map, **format.variables()}
    del variables["strftime_now"]
    system = ("system", *PROBES[1])
    request = {
        "template": template,
        "dialogues": [[{"role": role, "content": "text"} for role in roles] for roles in (*PROBES, system)],
        "variables": variables,
        "day": format.day.isoformat(),
        **{"max_s": MAX_TRIAL_S, "max_bytes": MAX_TRIAL_BYTES, "max_chars": MAX_TRIAL_CHARS},
    }
    return _excess(json.dumps(request, default=str))


@lru_cache(maxsize=64)
def _excess(request: str) -> str | None:
    """``request``: what ``template_trial`` reads."""
    command = [sys.executable, "-P", template_trial.__file__]
    try:
        ended = subprocess.run(command, input=request.encode(), timeout=WAIT_FOR_TRIAL_S, capture_output=True)
    except subprocess.TimeoutExpired:
        return f"the chat template did not render short dialogues within {WAIT_FOR_TRIAL_S:g} s"
    if ended.returncode >= 0 and ended.returncode != template_trial.TOO_MUCH:  # else it was killed
        return None
    limits = f"{MAX_TRIAL_S} s, {MAX_TRIAL_BYTES >> 20} MiB or {MAX_TRIAL_CHARS:,} characters"
    return f"the chat template needs more than {limits} for a short dialogue, or ends its process"


def _lack(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> str | None:
    """What a template that renders everything still does not write."""
    _, before_answer, after_answer, _ = gaps(tokenizer, format, ("user", "assistant", "user"))
    if before_answer == after_answer:
        return "the chat template does not tell roles apart"
    uninvited, invited = (gaps(tokenizer, format, ("user",), invites)[-1] for invites in (False, True))
    if invited == uninvited and invited.strip() != before_answer.strip():
        return "the chat template does not invite an answer (it ignores add_generation_prompt)"
    return None
