"""What the texts of constitutions from elsewhere become: principles, as a YAML file of ours would hold them.

Labels that our templates add themselves ("Critique Request:", "Revision:", "Options:", "Criterion 3 for Kindness:"...)
are stripped from both ends. A few-shot transcript is refused: it is an example, not a principle. A statement ("The AI
should be kind.") is asked about; a text that asks or chooses itself ("Which answer ...", "Prefer the response that
...") stays as it is.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlaif.errors import ConfigError

CATEGORY = "harm_avoidance"  #: the axis of the paper's principles; the public shapes have no categories
MAX_ID_CHARS = 40  #: of an id that is made from a statement
LEADING_LABEL = re.compile(
    r"^\s*(?:(?:critique|revision)\s?(?:request)?|criterion\s+\d+(?:\s+for\s+[^:\n]+)?):\s*", re.IGNORECASE
)
TRAILING_LABEL = re.compile(r"\b(?:critique|revision|options):\Z", re.IGNORECASE)
ASKS = re.compile(r"\W*(?:please\s+)?(?:which|who|choose|prefer|select|pick|compare|identify|decide)\b", re.IGNORECASE)
TO_LAST_WORD = re.compile(r".*\w", re.DOTALL)
HUMAN_TURN = re.compile(r"^[^\S\n]*(?:human|user|H)\s*:", re.IGNORECASE | re.MULTILINE)
ASSISTANT_TURN = re.compile(r"^[^\S\n]*(?:assistant|A)\s*:", re.IGNORECASE | re.MULTILINE)
EXAMPLES = "examples go into critique_revision.examples or labelling.examples"

PrincipleTree = dict[str, Any]


def principle(id: str, source: str, **texts: str) -> PrincipleTree:
    return {"id": id, "category": CATEGORY, "source": source, **texts}


def comparison_of(file: Path, place: str, value: Any) -> str:
    """The question about two answers that a criterion or a statement means, in one line."""
    text = required(file, place, " ".join(clean_text(file, place, value).split()))
    return text[0].upper() + text[1:] if _asks(text) else f"Which answer better follows this: {text}"


def _asks(text: str) -> bool:
    """Whether a text begins like a question or a choice, or ends in a question mark."""
    words = TO_LAST_WORD.match(text)
    return ASKS.match(text) is not None or "?" in text[words.end() if words else 0 :]


def clean_text(file: Path, place: str, value: Any) -> str:
    """``value`` without the labels around it; empty when there is nothing else, as in a bare "Critique:"."""
    if not isinstance(value, str):
        raise ConfigError(f"{file}: {place}: must be text")
    if HUMAN_TURN.search(value) and ASSISTANT_TURN.search(value):
        raise ConfigError(f"{file}: {place}: is a few-shot transcript, not a principle; {EXAMPLES}")
    return TRAILING_LABEL.sub("", LEADING_LABEL.sub("", value).strip()).strip()


def refuse_transcript(file: Path, texts: Iterable[str]) -> None:
    """Raises ConfigError for a list of which each item is one turn of a dialogue."""
    for place, (asked, answered) in enumerate(itertools.pairwise(texts), start=1):
        if HUMAN_TURN.match(asked) and ASSISTANT_TURN.match(answered):
            raise ConfigError(
                f"{file}: items {place} and {place + 1}: are turns of a few-shot transcript, not principles; {EXAMPLES}"
            )


def required(file: Path, place: str, text: str) -> str:
    if not text:
        raise ConfigError(f"{file}: {place}: is empty")
    return text


def id_of(name: str, number: int) -> str:
    """A name as an id; its number where nothing is left of it, as of one in another script."""
    decomposed = (unicodedata.normalize("NFKD", char) for char in name)  # together, marks take time by their square
    plain = "".join(decomposed).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_") or f"principle_{number}"


def id_of_statement(statement: str, number: int) -> str:
    """The first words of a statement, so that statements before it do not change its id."""
    whole = id_of(statement, number)
    return whole if len(whole) <= MAX_ID_CHARS else whole[: MAX_ID_CHARS + 1].rpartition("_")[0] or whole[:MAX_ID_CHARS]


def with_unique_ids(principles: Iterable[PrincipleTree]) -> Iterator[PrincipleTree]:
    """The same principles; from the second on, one with an id that is taken gets ``ID_2``, ``ID_3``..."""
    taken: set[str] = set()
    last: dict[str, int] = {}  # number of each id, so that none is tried twice
    for one in principles:
        id, number = one["id"], last.get(one["id"], 1)
        while id in taken:
            number += 1
            id = f"{one['id']}_{number}"
        last[one["id"]] = number
        taken.add(id)
        yield {**one, "id": id}
