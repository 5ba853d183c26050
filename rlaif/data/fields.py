"""Values of a row's fields, and what each of them may be. A field that is null, blank or an empty list is not given:
tables united from several sources fill what a row does not have with nulls.
"""

from __future__ import annotations

import contextlib
import math
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any

from rlaif.data.rows import BadRow, Fields
from rlaif.errors import format_value

#: Columns next to a conversation that are part of what the model is shown: leaving one out would change the prompt.
#: They are compared by their letters only, in any case: ``systemPrompt`` is ``system_prompt``.
_SYSTEM = frozenset(
    (
        *("system", "systemprompt", "systemmessage", "systeminstruction", "systeminstructions", "sysprompt", "sys"),
        *("preprompt", "customsystemprompt"),
        *("developer", "developerprompt", "developermessage"),
    )
)
_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")  #: general categories of characters that show nothing
#: Letters and marks that show nothing either: fillers, an empty Braille cell, selectors of variants.
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}
_BESIDE = {
    "instructions": "instructions for the assistant, or for people",
    **dict.fromkeys(("tools", "functions"), "tool turn"),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), "content that is not text"),
}


def require_text(fields: Fields, name: str) -> str:
    """The text in a field, unchanged. Raises BadRow when it is missing, empty, or not text."""
    return check_text(require(fields, name), name)


def require(fields: Fields, name: str) -> Any:
    """The value of a field. Raises BadRow when it is missing or null."""
    value = fields.get(name)
    if value is None:
        raise BadRow(f"field `{name}` is missing" if name not in fields else f"field `{name}` is null")
    return value


def check_text(value: Any, name: str) -> str:
    """``value``, unchanged. Raises BadRow when it is empty or not text."""
    if not isinstance(value, str):
        raise BadRow(f"field `{name}` must be text, not {kind_of(value)}")
    if is_blank(value):
        raise BadRow(f"field `{name}` is empty")
    if not encodable(value):
        raise BadRow(f"field `{name}` is not valid Unicode")
    return value


def is_given(fields: Fields, name: str) -> bool:
    """Whether a field holds something: not null or NaN, not blank, not an empty list or object."""
    value = fields.get(name)
    if isinstance(value, str):
        return not is_blank(value)
    return value is not None and value != [] and value != {} and value == value


def is_blank(text: str) -> bool:
    """Whether nothing in ``text`` can be seen: white space, control characters, characters without width."""
    return not any(map(_is_visible, text.lstrip()))  # which passes over most of what is blank at once


@lru_cache(maxsize=4096)
def _is_visible(char: str) -> bool:
    return unicodedata.category(char) not in _UNSEEN and char not in _BLANKS


def given_name(fields: Fields, names: Iterable[str]) -> str | None:
    """The first of ``names`` that holds something."""
    return next((name for name in names if is_given(fields, name)), None)


def refuse_beside(fields: Fields, where: str = "") -> None:
    """Raises BadRow for columns next to a conversation that these records cannot hold: tools, images.

    A conversation without them would be another conversation, so they are never left out without a word.
    """
    for name in fields:
        what = _BESIDE.get(_letters(name))
        if what and is_given(fields, name):
            raise BadRow(f"field `{where}{name}`: {what}: {refusal_of(what)}")


def system_column(fields: Fields) -> str | None:
    """The name of the column that holds a system turn. Raises BadRow when two do, and do not agree."""
    names = [str(name) for name in fields if _letters(name) in _SYSTEM and is_given(fields, name)]
    differing = next((name for name in names[1:] if fields[name] != fields[names[0]]), None)
    if differing:
        raise BadRow(f"fields `{names[0]}` and `{differing}` are two system turns; give one")
    return names[0] if names else None


def _letters(name: object) -> str:
    return "".join(filter(str.isalpha, str(name))).lower()


def number_of(value: Any, name: str) -> int | float:
    """A number, or the number that a text spells, as in a CSV cell. Raises BadRow for everything else."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
    if isinstance(value, Decimal):  # of a parquet column
        value = float(value)
    infinite = isinstance(value, float) and not math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or infinite:
        spelled = value if isinstance(value, float) else "text" if isinstance(value, str) else kind_of(value)
        raise BadRow(f"field `{name}` must be a number, not {spelled}")
    return value


def refusal_of(what: str) -> str:
    """Why a turn or a content of kind ``what`` is refused, and what to do."""
    if "instructions" in what:
        return "give them as a system turn in `system`, leave them out, or name the fields that are to be read"
    return "only system, human and assistant turns of text are read"


def trim(text: str) -> str:
    """``text`` without blank lines and white space at its ends; an indented first line, as in code, stays indented.

    A single space in front is no indentation: ``"prompt" + " answer"`` is how many files join them.
    """
    body = text.strip()
    space = text[: len(text) - len(text.lstrip())]
    above = space.rstrip(" \t")
    indentation = space[len(above) :] if above[-1:] in ("", "\r", "\n") else ""
    return f"{indentation}{body}" if len(indentation) > 1 or indentation == "\t" else body


def trim_after(mark: str, text: str) -> str:
    """``trim`` for what follows a mark, such as a speaker's name: only what begins on a line of its own is indented."""
    return trim(f"\n{text}" if mark.endswith("\n") else text.lstrip(" \t"))


def encodable(text: str) -> bool:
    """Whether a tokenizer accepts ``text``: JSON and badly decoded files can hold lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def quoted(value: Any) -> str:
    """A value for a message: the beginning of a text, and of others only what they are, for they may have any size."""
    return repr(format_value(value)) if isinstance(value, str) else kind_of(value)


def kind_of(value: Any) -> str:
    """What a value is, for a message."""
    kinds = {
        dict: "an object",
        list: "a list",
        str: "invalid text",
        bool: "a truth value",
        type(None): "null",
    }
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
