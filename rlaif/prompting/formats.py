"""Which dialogue format each role of a run uses, and the tokenizer that the policy is saved with.

Three roles have a format of their own: the policy (base model, SL-CAI, preference model, rollouts), the helpful-only
model, and the labeller. What a model wrote crosses from one to another as text, so the formats may differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlaif.config.files import SHIPPED_CONFIGS
from rlaif.config.schema import Config
from rlaif.errors import ConfigError
from rlaif.prompting.chat_templates import DEFAULT_DAY, ChatFormat, thought_closing, turn_end
from rlaif.prompting.dialogues import HUMAN_ASSISTANT_TEMPLATE, DialogueFormat, chat_format
from rlaif.prompting.tokenization import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FormatRole = Literal["policy", "generator", "labeller"]  #: ``generator``: the helpful-only model, which it serves first


def format_of(config: Config, role: FormatRole, day: date = DEFAULT_DAY) -> DialogueFormat:
    """The format of one role. Raises ConfigError for a template file that cannot be read.

    The policy's prompts leave no thought open: it learns answers, not thoughts.
    """
    named = {
        "policy": None,
        "generator": config.generator.dialogue_format,
        "labeller": config.labeller.dialogue_format,
    }[role]
    if (named or config.dialogue_format) == "human_assistant":
        return "human_assistant"
    if role == "policy":
        template, kwargs = read_chat_template(config.supervision.chat_template), config.supervision.chat_template_kwargs
    else:
        template, kwargs = None, getattr(config, role).chat_template_kwargs
    given = tuple(sorted(kwargs.items()))
    return ChatFormat(template=template, kwargs=given, day=day, may_think=role == "generator")


def read_chat_template(path: str | None) -> str | None:
    """The text of a Jinja file, or of a shipped template for a name without a suffix. Raises ConfigError."""
    if path is None:
        return None
    file = Path(path) if Path(path).suffix else SHIPPED_CONFIGS / "templates" / f"{path}.jinja"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        shipped = ", ".join(sorted(file.stem for file in (SHIPPED_CONFIGS / "templates").glob("*.jinja")))
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise ConfigError(
            f"supervision.chat_template={path}: {reason}; give a Jinja file, or a shipped template: {shipped}"
        ) from None
    if not text.strip():
        raise ConfigError(f"supervision.chat_template={path}: is empty; give a Jinja file with a chat template")
    return text


# ------------------------------------------------------------------------------------------ the policy's tokenizer
def policy_tokenizer(path: str | Path, format: DialogueFormat) -> PreTrainedTokenizerFast:
    """The tokenizer of a base model as the policy and the preference model are saved with it.

    Its chat template renders the prompts that they were trained on (but for the day), and its EOS is the token with
    which that template ends a turn, where that is one special token. Raises ModelError, and RequestError for a
    template that refuses a question and its answer.
    """
    tokenizer = load_tokenizer(path)
    if format == "human_assistant":
        tokenizer.chat_template = HUMAN_ASSISTANT_TEMPLATE
        return tokenizer
    chat = chat_format(format)
    if (end := turn_end(tokenizer, chat)) is not None:
        tokenizer.eos_token = end
    tokenizer.chat_template = "".join(_fixed(tokenizer, chat))
    return tokenizer


def _fixed(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> Iterator[str]:
    """The template with the run's variables set in it, except the day, and with the thought closed that it opens."""
    template = (format.template or tokenizer.get_chat_template()).removesuffix("\n")  # as Jinja does
    for name, value in format.fixed_variables().items():
        if name in template:
            yield f"{{%- set {name} = {json.dumps(value)} -%}}"
    yield template
    if closing := thought_closing(tokenizer, format):
        yield f"{{% if add_generation_prompt %}}{{{{ {json.dumps(closing)} }}}}{{% endif %}}"
