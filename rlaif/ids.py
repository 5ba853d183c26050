"""The grammar of ids: how they are built, and how the few that are read back are parsed.

```
row         FILE:ROW                          red_team.jsonl:17
sample      OF#NUMBER                         one of several samples or pairs made of a prompt, a group, a question
evaluation  ROW#AXIS.REPEAT                   an answer to a held-out prompt; prompts repeat until there are enough
revision    ROW/ROUND                         a training row made of one round of a revision chain
group       ROW@AXIS.BATCH.POSITION           rollouts of one prompt in one batch
rollout     GROUP#MEMBER
refresh     ROW@refresh.VERSION.POSITION      a pair of answers sampled for a refresh of the preference model
```
FILE is whatever the user named, so it may itself contain ``:``, ``#``, ``/``, ``@``; parsers read from the end. Seeds
are hashes of ids: a changed id is another sample.
"""

from __future__ import annotations

import re

_GROUP = re.compile(r"(?P<prompt>.*)@\w+\.\d+\.\d+", re.DOTALL)
_ROLLOUT = re.compile(r"(?P<group>.*)#\d+", re.DOTALL)


def row_id(file: str, row: int) -> str:
    return f"{file}:{row}"


def sample_id(of: str, number: int) -> str:
    return f"{of}#{number}"


def evaluation_id(prompt_id: str, axis: str, repeat: int) -> str:
    return f"{prompt_id}#{axis}.{repeat}"


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


def _part(grammar: re.Pattern[str], id: str, name: str) -> str:
    if (match := grammar.fullmatch(id)) is None:
        raise ValueError(f"{id!r} is not the id of a rollout")
    return match[name]
