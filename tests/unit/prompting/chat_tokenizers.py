"""Byte-level tokenizers with the chat templates that real models have, in their own words and special tokens."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from tests.tricky_tokenizers import bpe

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    f"{ALTERNATING}<start_of_turn>{{{{ 'model' if m.role == 'assistant' else m.role }}}}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL_1 = (
    f"{{{{ bos_token }}}}{ALTERNATING}{{% if m.role == 'user' %}}{{{{ '[INST] ' + m.content + ' [/INST]' }}}}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    f"{ALTERNATING}{{% if m.role == 'user' %}}{{{{ bos_token + '[INST] ' + (system if loop.first else '') "
    "+ m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
ALPACA = (
    "{% for m in messages %}{{ '### Instruction:\n' if m.role == 'user' else '### Response:\n' }}{{ m.content }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }}{% else %} ASSISTANT: {{ m.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
BARE_WORDS = (
    "{% for m in messages %}{{ m.role }}\n{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)
DATED = "<|im_start|>system\nToday is {{ strftime_now('%d %b %Y') }}, {{ date_string }}<|im_end|>\n" + CHATML
THINKING = (  # opens a thought unless it is told not to, and cuts earlier thoughts off
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
ALWAYS_THINKING = THINKING.replace("enable_thinking is defined and enable_thinking is false", "false")

TEMPLATES = {
    "ChatML": CHATML,
    "Gemma": GEMMA,
    "Mistral 1": MISTRAL_1,
    "Llama 2": LLAMA_2,
    "Zephyr": ZEPHYR,
    "Alpaca": ALPACA,
    "Vicuna": VICUNA,
    "bare words": BARE_WORDS,
    "dated": DATED,
    "thinking": THINKING,
    "always thinking": ALWAYS_THINKING,
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]


def with_template(template: str | None, specials: tuple[str, ...] = tuple(SPECIAL)) -> PreTrainedTokenizerFast:
    """A tokenizer whose EOS is ``</s>``; ``specials`` are its special tokens besides that and the BOS."""
    tokenizer = bpe(bos_token="<s>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    tokenizer.chat_template = template
    return tokenizer
