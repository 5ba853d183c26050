"""From text to token ids, the same way everywhere: in labels, rollouts, training rows and evaluation.

Text is untrusted: a user may write ``</s>`` or ``<|im_end|>``. Three rules keep it text:
1. A plain ``str`` is encoded with special tokens split into ordinary ones, whatever it contains.
2. Only ``ControlText``, which a chat template rendered, is encoded with its control tokens parsed. The turns in it went
   through ``neutralize`` first, which breaks with a space whatever reads like a special token.
3. ``Pieces`` are encoded one by one, so that no text can merge with a delimiter next to it; but for that, as they would
   be in one text.

Every prompt begins with the BOS if the tokenizer has one; the caller that completes a dialogue appends the EOS.

Work on a text is linear in its length, and a prompt is fitted by no more of its end than could fit: however long a row
is, it costs an engine what its longest prompt costs (``MAX_CHARS_PER_TOKEN``), and not in the engine's event loop
(``fit_turns_aside``).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.errors import ModelError, RequestError
from rlaif.prompting.caches import remember_short
from rlaif.records import Turn

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


#: More characters than a whole prompt has for each of its tokens; what is longer than that is too long, unencoded.
MAX_CHARS_PER_TOKEN = 32
PLAIN_TOKENIZER = "TokenizersBackend"  #: transformers' name for whatever tokenizer.json says
MAX_MESSAGE_CHARS = 300  #: of another library's message
#: Conversations that are longer are fitted outside of the event loop; shorter ones take a few milliseconds.
MAX_INLINE_CHARS = 8192


class ControlText(str):
    """Text whose control tokens are parsed. Encode it on its own: joined to other text it could not be trusted."""

    def __add__(self, other: str) -> str:
        raise TypeError("encode the rendered prompt and what follows it separately")

    def followed_by(self, text: str) -> ControlText:
        """With ``text``, which must be fixed text of ours, or else have gone through ``neutralize``."""
        return ControlText(str.__add__(self, text))


class Pieces(tuple[str, ...]):
    """A sequence of texts, each tokenized on its own, so that none of them can change the tokens of another."""


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a local model. Raises ModelError when it cannot be read or used, is slow or has no EOS."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # texts are short, and forks would cause warnings
    try:
        tokenizer = _tokenizer_class(Path(path)).from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever transformers meets in files that came from anywhere
        raise ModelError(
            f"{path}: its tokenizer or config.json cannot be read: {describe_model_error(error)}"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{path}: needs a fast tokenizer (tokenizer.json)")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{path}: its tokenizer names no eos_token")
    try:
        for control in (False, True):
            _raw_ids(tokenizer, "a text\n", control)
    except Exception as error:
        raise ModelError(f"{path}: its tokenizer cannot encode a text: {describe_model_error(error)}") from error
    return tokenizer


def _tokenizer_class(path: Path) -> Any:
    """AutoTokenizer; for a Llama whose tokenizer needs no class of its own the one that it would choose, without what
    comes with it: torch and accelerate take a scripted engine longer to import than all the rest."""
    try:
        model, own = (json.loads((path / name).read_bytes()) for name in ("config.json", "tokenizer_config.json"))
        is_plain = (model["model_type"], own["tokenizer_class"]) == ("llama", PLAIN_TOKENIZER)
        is_plain = is_plain and "auto_map" not in {**model, **own}  # else it has code of its own
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # AutoTokenizer says what is wrong
        is_plain = False
    if is_plain:
        from transformers import TokenizersBackend

        return TokenizersBackend
    from transformers import AutoTokenizer

    return AutoTokenizer


def describe_model_error(error: BaseException) -> str:
    """The first line of another library's error about a model, for a message; two where the first announces the
    second. Code that comes with a model is never run, so nobody is advised to allow it."""
    text = str(error)
    if "trust_remote_code" in text:
        return "it needs code of its own, which is never run"
    first, *others = text.strip().splitlines() or [""]
    line = f"{first} {others[0].strip()}" if first.endswith(":") and others else first
    return (line if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {line}")[:MAX_MESSAGE_CHARS]


@lru_cache(maxsize=16)
def special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The special tokens of a tokenizer and their ids, except the unknown token, which any text may become."""
    specials = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return {text: i for text, i in (specials | named).items() if text != tokenizer.unk_token}


def neutralize(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """``text`` with every special token's name broken by a space: ``<|im_end|>`` becomes ``< |im_end|>``.

    A name of a single visible character cannot be broken, and stays: in plain text it is no special token anyway.
    """
    pattern = _special_names(tokenizer)
    while pattern is not None and pattern.search(text):  # ends: a name holds only so many spaces in a row
        text = pattern.sub(lambda match: _with_a_space(match[0]), text)
    return text


def _with_a_space(name: str) -> str:
    """``name`` with a space after its first visible character."""
    place = len(name) - len(name.lstrip()) + 1
    return f"{name[:place]} {name[place:]}"


@lru_cache(maxsize=16)
def _special_names(tokenizer: PreTrainedTokenizerFast) -> re.Pattern[str] | None:
    """The names that a space can break."""
    names = sorted((name for name in special_tokens(tokenizer) if len(name.strip()) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names))) if names else None


def encode(tokenizer: PreTrainedTokenizerFast, text: str | Pieces, *, begins: bool = False) -> list[int]:
    """Token ids of ``text``, with nothing added: it goes on from other text, unless it ``begins`` a prompt.

    Raises ModelError when the tokenizer cannot help parsing special tokens in plain text.
    """
    ids: list[int] = []
    for place, piece in enumerate(text if isinstance(text, Pieces) else (text,)):
        ids += _encoded(tokenizer, piece, isinstance(piece, ControlText), begins and place == 0)
    return ids


# A question's fixed pieces, and its texts in both orders and under every principle.
@remember_short(2048, lambda tokenizer, text, control, begins: len(text))
def _encoded(tokenizer: PreTrainedTokenizerFast, text: str, control: bool, begins: bool) -> tuple[int, ...]:
    before = "" if begins or not _adds_a_space(tokenizer) or (control and _begins_special(tokenizer, text)) else "\n"
    num_before = len(_raw_ids(tokenizer, before, control)) if before else 0
    ids = _raw_ids(tokenizer, before + str(text), control)[num_before:]
    if not control and (forged := _special_ids(tokenizer).intersection(ids)):
        raise ModelError(f"the tokenizer turns plain text into its special tokens {sorted(forged)}")
    return tuple(ids)


def _raw_ids(tokenizer: PreTrainedTokenizerFast, text: str, control: bool) -> list[int]:
    # The Rust tokenizer itself: on short texts, transformers' wrapper takes longer than the encoding.
    backend = tokenizer.backend_tokenizer if control else _plain_backend(tokenizer)
    ids: list[int] = backend.encode_batch_fast([text], add_special_tokens=False)[0].ids  # no offsets, no GIL
    return ids


@lru_cache(maxsize=16)
def _plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy that splits special tokens: threads encode at the same time, so nobody may change how one tokenizer does
    it."""
    copy: Tokenizer = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    copy.encode_special_tokens = True
    return copy


@lru_cache(maxsize=16)
def _adds_a_space(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether it puts a space in front of every text, as SentencePiece models do: in front of each piece of a dialogue,
    that would be a space which nobody wrote. Pieces are therefore encoded behind a line break."""
    ids = _raw_ids(tokenizer, "a", control=False)
    return bool(ids) and str(tokenizer.backend_tokenizer.id_to_token(ids[0])).startswith("▁")


def _begins_special(tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    return any(text.startswith(name) for name in special_tokens(tokenizer))


@lru_cache(maxsize=16)
def _special_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    return frozenset(special_tokens(tokenizer).values())


def prompt_ids(tokenizer: PreTrainedTokenizerFast, text: str | Pieces) -> list[int]:
    """Token ids of a prompt: ``encode`` with the BOS prepended, exactly once, if the tokenizer has one."""
    ids = encode(tokenizer, text, begins=True)
    bos = tokenizer.bos_token_id
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def letter_ids(
    tokenizer: PreTrainedTokenizerFast, question: Pieces, letters: Sequence[str]
) -> tuple[list[int], tuple[int, ...]]:
    """Prompt ids and each letter's token id, found in context.

    The question is tokenized with each of ``letters`` (e.g. " (A)", " (B)") appended to its last piece. The common
    prefix of the results is the prompt, and the first id after it is the letter's. Raises ModelError when a tokenizer
    does not distinguish the letters.
    """
    *before, closing = question
    prefix, firsts = _letters_after(tokenizer, closing, isinstance(closing, ControlText), not before, tuple(letters))
    return [*prompt_ids(tokenizer, Pieces(before)), *prefix], firsts


@lru_cache(maxsize=64)  # a template's closing line, nearly always the same
def _letters_after(
    tokenizer: PreTrainedTokenizerFast, closing: str, control: bool, begins: bool, letters: tuple[str, ...]
) -> tuple[list[int], tuple[int, ...]]:
    endings = [encode(tokenizer, append_text(closing, letter), begins=begins) for letter in letters]
    prefix = common_prefix(endings)
    firsts = tuple(ids[len(prefix)] for ids in endings if len(ids) > len(prefix))
    if len(set(firsts)) < len(letters):
        raise ModelError(f"the tokenizer gives {', '.join(map(repr, letters))} no distinct next tokens")
    return prefix, firsts


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The ids that all ``rows`` begin with."""
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return [column[0] for column in shared]


def append_text(question: str, text: str) -> str:
    """``question`` followed by ``text``, a fixed text of ours."""
    return question.followed_by(text) if isinstance(question, ControlText) else question + text


# ------------------------------------------------------------------------------------------------- fitting
Render = Callable[[Sequence[Turn]], str | Pieces]
Fitted = tuple[tuple[Turn, ...], list[int], bool]  #: turns, prompt ids, whether anything was dropped


async def fit_turns_aside(
    turns: Sequence[Turn], render: Render, tokenizer: PreTrainedTokenizerFast, max_tokens: int, answers: str = ""
) -> Fitted:
    """As ``fit_turns``, in a thread when it takes long: an engine's event loop also serves other rows.

    ``answers``: texts that are rendered beside the turns. Raises RequestError when these alone are too long.
    """
    if len(answers) > max_tokens * MAX_CHARS_PER_TOKEN:
        raise RequestError(f"the answers have {len(answers):,} characters, too many for {max_tokens} tokens")
    if len(answers) + _num_chars(turns) <= MAX_INLINE_CHARS:
        return fit_turns(turns, render, tokenizer, max_tokens)
    return await asyncio.to_thread(fit_turns, turns, render, tokenizer, max_tokens)


def fit_turns(turns: Sequence[Turn], render: Render, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> Fitted:
    """(turns, prompt ids, whether anything was dropped): the most recent turns whose prompt fits ``max_tokens``.

    The oldest turns are dropped first, and what remains starts with a human turn; a system turn before it stays. When
    the last human turn by itself is too long, its end is kept. Raises RequestError when even an empty turn does not
    fit.
    """
    whole = fit_whole_turns(turns, render, tokenizer, max_tokens)
    if whole is not None:
        kept, ids = whole
        return kept, ids, len(kept) < len(turns)
    last = (*turns[: _num_system(turns)], *turns[_starts(turns)[-1] :])
    kept = _cut(last, lambda cut: len(prompt_ids(tokenizer, render(cut))) - max_tokens, max_tokens)
    return kept, prompt_ids(tokenizer, render(kept)), True


def fit_whole_turns(
    turns: Sequence[Turn], render: Render, tokenizer: PreTrainedTokenizerFast, max_tokens: int
) -> tuple[tuple[Turn, ...], list[int]] | None:
    """(turns, prompt ids) of ``fit_turns``, where nothing is cut within a turn; None when the last one does not fit.

    What is kept is found by bisection: with more turns, a prompt is never shorter.
    """
    num_system = _num_system(turns)
    starts = _short_enough(turns, _starts(turns), max_tokens)
    fitting: tuple[tuple[Turn, ...], list[int]] | None = None
    fits, next_to_try = len(starts), 0  # of places in ``starts``: the first that is known to fit; all turns go first
    too_long = -1
    while too_long < next_to_try < fits:
        kept = (*turns[:num_system], *turns[starts[next_to_try] :])
        ids = prompt_ids(tokenizer, render(kept))
        if len(ids) <= max_tokens:
            fitting, fits = (kept, ids), next_to_try
        else:
            too_long = next_to_try
        next_to_try = (too_long + fits) // 2
    return fitting


def _starts(turns: Sequence[Turn]) -> list[int]:
    """Where what is kept may begin: at the first turn after a system turn, and at every later human turn."""
    first = _num_system(turns)
    return [first, *(place for place in range(first + 1, len(turns)) if turns[place].role == "human")]


def _short_enough(turns: Sequence[Turn], starts: Sequence[int], max_tokens: int) -> list[int]:
    """Those of ``starts`` after which a prompt of ``max_tokens`` may begin: a turn is a token at least."""
    short: list[int] = []
    num_chars, end = _num_chars(turns[: _num_system(turns)]), len(turns)
    for start in reversed(starts):
        num_chars, end = num_chars + _num_chars(turns[start:end]), start
        if num_chars > max_tokens * MAX_CHARS_PER_TOKEN or len(turns) - start > max_tokens:
            break
        short.append(start)
    return short[::-1]


def _num_chars(turns: Sequence[Turn]) -> int:
    return sum(len(turn.text) for turn in turns)


def _num_system(turns: Sequence[Turn]) -> int:
    """1 where a system turn is the first, else 0."""
    return int(bool(turns) and turns[0].role == "system")


def _cut(turns: tuple[Turn, ...], excess: Callable[[tuple[Turn, ...]], int], max_tokens: int) -> tuple[Turn, ...]:
    """``turns`` with only as much of the end of the first one's text as brings ``excess`` (in tokens over
    ``max_tokens``) to 0 or below; a system turn before it stays whole."""
    system, (first, *others) = turns[: _num_system(turns)], turns[_num_system(turns) :]
    max_chars = max_tokens * MAX_CHARS_PER_TOKEN
    if (num_chars := _num_chars((*system, *others))) > max_chars:
        raise RequestError(
            f"the prompt has {num_chars:,} characters besides its last human turn's, too many for {max_tokens} tokens"
        )

    def keeping(num_chars: int) -> tuple[Turn, ...]:
        return (*system, Turn(role=first.role, text=first.text[len(first.text) - num_chars :]), *others)

    if (over := excess(keeping(0))) > 0:
        raise RequestError(f"the prompt is {over} tokens too long even without its first turn's text")
    fits, too_long = 0, min(len(first.text), max_chars)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if excess(keeping(middle)) <= 0:
            fits = middle
        else:
            too_long = middle
    return keeping(fits)
