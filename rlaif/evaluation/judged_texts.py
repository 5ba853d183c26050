"""Files of judged texts: every text that an evaluation's numbers are over, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rlaif.places.writing import replacing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Judged = TypeVar("_Judged", bound="DataclassInstance")


def write_judged(path: Path, judged: Iterable[_Judged], add: Callable[[_Judged], None]) -> None:
    """Write every judged text and ``add`` it to the totals; no text is kept in memory."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for text in judged:
            add(text)
            file.write(json.dumps(asdict(text), ensure_ascii=False) + "\n")
