"""Fingerprints of content, and the grammar of ids: how they are built, and how the few that are read back are parsed.

```
row         CONTENT                           3f2a9c01d2e4a0b1; CONTENT~2 is a second row with the same content
place       FILE:ROW                          red_team.jsonl:17, of a row that cannot be used
sample      OF#NUMBER                         one of several samples or pairs made of a prompt, a group, a question
evaluation  ROW#AXIS.REPEAT                   an answer to a held-out prompt; prompts repeat until there are enough
revision    ROW/ROUND                         a training row made of one round of a revision chain
group       ROW@AXIS.BATCH.POSITION           rollouts of one prompt in one batch
rollout     GROUP#MEMBER
refresh     ROW@refresh.VERSION.POSITION      a pair of answers sampled for a refresh of the preference model
```
CONTENT is the fingerprint of what is used of a row. So an id outlives edits elsewhere in the file, and the file's name;
a row that was edited is another row. Parsers read from the end. Seeds are hashes of ids: another id is another sample.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields, is_dataclass
from datetime import date
from typing import Any

from pydantic import BaseModel

NO_CONTENT = frozenset({"source_file", "source_row", "seconds"})  #: fields of records
_GROUP = re.compile(r"(?P<prompt>.*)@\w+\.(?P<batch>\d+)\.\d+", re.DOTALL)
_ROLLOUT = re.compile(r"(?P<group>.*)#\d+", re.DOTALL)


def fingerprint(*content: object) -> str:
    """16 hex digits of the SHA-256 of ``content``: plain values, records, sections of the configuration.

    A setting that has its default value does not count, so that a later version with a new setting finds the same.
    """
    text = json.dumps(content, default=_plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.name not in NO_CONTENT}
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"no fingerprint of {type(value).__name__}")


def settings_of(task: Any, *, without: str = "") -> dict[str, Any]:
    """The fields of a task, which are part of what its records depend on, except one."""
    return {field.name: getattr(task, field.name) for field in fields(task) if field.name != without}


def row_id(content: str, occurrence: int) -> str:
    """``content``: the row's fingerprint. ``occurrence``: 1 for the first row of its source with this content."""
    return content if occurrence == 1 else f"{content}~{occurrence}"


def place_id(file: str, row: int) -> str:
    return f"{file}:{row}"


def sample_id(of: str, number: int) -> str:
    return f"{of}#{number}"


def evaluation_id(prompt_id: str, axis: str, repeat: int) -> str:
    return f"{prompt_id}#{axis}.{repeat}"


def evaluated_prompt(id: str) -> str:
    """The prompt of an ``evaluation_id``."""
    return id.rpartition("#")[0]


def suite_id(suite: str, prompt_id: str) -> str:
    """Of a prompt in a test suite: suites share prompts."""
    return f"{suite}:{prompt_id}"


def match_id(first: str, second: str, answer_id: str) -> str:
    """Of a match of two snapshots on one answer each, which have one ``evaluation_id``."""
    return f"{first}/{second}/{answer_id}"


def match_of(id: str) -> tuple[str, str, str]:
    """Both snapshots and the evaluation id of a ``match_id``."""
    first, second, answer_id = id.split("/", 2)
    return first, second, answer_id


def revision_id(chain_id: str, round: int) -> str:
    return f"{chain_id}/{round}"


def group_id(prompt_id: str, axis: str, batch: int, position: int) -> str:
    return f"{prompt_id}@{axis}.{batch}.{position}"


def refresh_id(prompt_id: str, version: int, position: int) -> str:
    return group_id(prompt_id, "refresh", version, position)


def group_id_of(rollout_id: str) -> str:
    """The group of a rollout. Raises ValueError for an id that is no rollout's."""
    return _part(_ROLLOUT, rollout_id, "group")


def prompt_id_of(rollout_id: str) -> str:
    """The prompt of a rollout. Raises ValueError for an id that is no rollout's."""
    return _part(_GROUP, group_id_of(rollout_id), "prompt")


def batch_of(rollout_id: str) -> int:
    """The batch of a rollout. Raises ValueError for an id that is no rollout's."""
    return int(_part(_GROUP, group_id_of(rollout_id), "batch"))


def _part(grammar: re.Pattern[str], id: str, name: str) -> str:
    if (match := grammar.fullmatch(id)) is None:
        raise ValueError(f"{id!r} is not the id of a rollout")
    return match[name]
