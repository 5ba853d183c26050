"""Every regular expression of the packages takes time linear in the text, whatever the text is.

Each is used as the code uses it (``search``, ``fullmatch``...) on texts made to mislead it: what it looks for, and what
it passes over, many times in a row. Only growth is compared, with a wide margin: quadratic work would grow sixteenfold.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.dialogues.conversations import parse_conversation
from rlaif.data.rows import BadRow
from rlaif.miniature import truth
from rlaif.miniature.lexicon import SHIPPED_LEXICON, load_lexicon
from rlaif.prompting import questions
from tests.growth import FACTOR, check_linear

REPOSITORY = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for root in ("rlaif", "actors")
    for path in (REPOSITORY / root).rglob("*.py")
    if path.stem not in ("__init__", "__main__")
)
METHODS = ("match", "fullmatch", "search", "split", "sub", "findall", "finditer")
PUMPS = (
    *(" ", "\n", "\n ", "\t", "a", "A", "0", "é", ".", ",", ":", ";", "?", "!", "-", "_", "*", "#", "=", "@", "|"),
    *('"', "“", "'", "`", "(", "[", "{", "<", ")", "]", "}", ">", "\\", "\\n", "[a](", "a.", "a ", "0 ", "/"),
)
PASSED_ON = {"rlaif.ids": "fullmatch"}  #: how a module uses patterns that it passes to a function
SIZE = 2_000  #: characters: quadratic work on them takes some 10 ms
Use = tuple[re.Pattern[str], str]


def uses_in(module: str) -> Iterator[Use]:
    """(pattern, method) of each use in a module; patterns whose use cannot be seen are searched for."""
    names = vars(importlib.import_module(module))
    tree = ast.parse((REPOSITORY / f"{module.replace('.', '/')}.py").read_text())
    seen = set()
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in METHODS):
            continue
        owner = call.func.value
        if isinstance(owner, ast.Name) and isinstance(pattern := names.get(owner.id), re.Pattern):
            yield pattern, call.func.attr
            seen.add(pattern)
        elif isinstance(owner, ast.Name) and owner.id == "re" and isinstance(call.args[0], ast.Constant):
            yield re.compile(call.args[0].value), call.func.attr
    for value in names.values():
        method = PASSED_ON.get(module, "search")
        yield from ((pattern, method) for pattern in patterns_in(value) if pattern not in seen)


def patterns_in(value: Any) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple):
        yield from itertools.chain.from_iterable(map(patterns_in, value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from itertools.chain.from_iterable(patterns_in(getattr(value, each.name)) for each in fields(value))


def words_of(pattern: re.Pattern[str]) -> list[str]:
    """What a pattern spells out, in short runs."""
    plain = re.sub(r"\\(.)", lambda escaped: "" if escaped[1] in "swdbSWDBAZ" else escaped[1], pattern.pattern)
    words = [word for word in re.findall(r"[\w<>/#`：:\[\]|]{1,20}", plain) if not word.isdecimal()]
    return ["", *dict.fromkeys(words)][:9]


def texts(pattern: re.Pattern[str], size: int) -> Iterator[str]:
    for word, pump, end in itertools.product(words_of(pattern), PUMPS, ("x", "\x01")):
        yield word + pump * (size // len(pump)) + end
        yield (word + pump) * (size // len(word + pump)) + end
        yield (word + pump * 40) * (size // len(word + pump * 40)) + end


def check(pattern: re.Pattern[str], method: str) -> None:
    def work(text: str) -> None:
        found = getattr(pattern, method)(*(("", text) if method == "sub" else (text,)))
        for _ in found if method == "finditer" else ():
            pass

    for small, large in zip(texts(pattern, SIZE), texts(pattern, FACTOR * SIZE), strict=True):
        check_linear(work, small, large)


# ------------------------------------------------------------------------ patterns that functions make of what they get
DIALOGUES = (
    *(
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c",
        "Human: a\nAssistant: b\nHuman: c",
        "Q: a\nAssistant: b",
        "Anna: a\nAssistant: b",
    ),
    *(
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n",
        "<s>[INST] a [/INST] b</s>[INST] c [/INST]",
    ),
    *("<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>", "<start_of_turn>user\na<end_of_turn>\n"),
    *("### Instruction:\na\n\n### Response:\nb", "USER: a ASSISTANT: b USER: c"),
)


def read_dialogues() -> None:
    for text in DIALOGUES:
        with contextlib.suppress(BadRow):
            parse_conversation(text, "prompt")


def classify_answers() -> None:
    lexicon = load_lexicon(SHIPPED_LEXICON)
    request = f"{lexicon.actions('red_team')[0].verb} {lexicon.objects('red_team')[0]}"
    truth._surface_pattern.cache_clear()
    truth._compiled.cache_clear()
    truth.classify(lexicon, "red_team", request, "It is so.")


#: What makes them, and how it uses those that it compiles.
MAKERS: dict[str, tuple[Callable[[], object], str]] = {
    "dialogues": (read_dialogues, "search"),
    "classes of answers": (classify_answers, "fullmatch"),
    "delimiters of a question": (lambda: questions._delimiters.__wrapped__(questions.DEFAULT.text), "sub"),
    "options of a template": (lambda: [*questions._mistakes(questions.DEFAULT.text)], "search"),
}


def made_by(make: Callable[[], object], method: str) -> set[tuple[str, int, str]]:
    """(pattern, flags, method) of each pattern that ``make`` gives to ``re``."""
    made: list[Use] = []

    def recorded(name: str, used_as: str) -> Callable[..., Any]:
        original = getattr(re, name)

        def record(pattern: str | re.Pattern[str], *arguments: Any, **options: Any) -> Any:
            flags = arguments[0] if name == "compile" and arguments else options.get("flags", 0)
            made.append((compile_(pattern, flags), used_as))
            return original(pattern, *arguments, **options)

        return record

    compile_ = re.compile
    with pytest.MonkeyPatch.context() as patch:
        for name in METHODS:
            patch.setattr(re, name, recorded(name, name))
        patch.setattr(re, "compile", recorded("compile", method))
        make()
    return {(pattern.pattern, pattern.flags, used_as) for pattern, used_as in made}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_pattern_that_is_made_is_linear(maker: str) -> None:
    made = made_by(*MAKERS[maker])
    assert made
    for source, flags, method in made:
        check(re.compile(source, flags), method)


def test_patterns_are_seen_when_they_are_made() -> None:
    made = made_by(lambda: (re.split(rf"{'a'}+", "b"), re.compile("c", re.IGNORECASE)), "sub")
    assert {(source, method) for source, _, method in made} == {("a+", "split"), ("c", "sub")}


USES = sorted({(pattern.pattern, pattern.flags, method) for module in MODULES for pattern, method in uses_in(module)})


@pytest.mark.parametrize(("source", "flags", "method"), USES)
def test_a_pattern_is_linear(source: str, flags: int, method: str) -> None:
    check(re.compile(source, flags), method)


@pytest.mark.parametrize(
    ("source", "method"),
    [
        (r"\n\s*(?:Human|Assistant)\s*:", "sub"),
        (r"\?\W*$", "search"),
        (r"\[([^\]]+)\]\([^)]*\)", "sub"),
        (r".*(?:\\n)+\s*Human:.*", "fullmatch"),
    ],
)
def test_a_quadratic_pattern_is_seen(source: str, method: str) -> None:
    with pytest.raises(AssertionError):
        check(re.compile(source, re.DOTALL), method)
