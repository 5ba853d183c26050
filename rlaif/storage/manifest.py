"""``manifest.json``: which stages have finished, and what became of every kind of rows.

``format`` 2, in the order in which things happened:

- ``stages``: stage of the story -> ``{"seconds"}``; a stage that is not listed has not finished.
- ``config``: the hash of the configuration, in case ``config.yaml`` is lost.
- ``began``: the day on which the run began (UTC), as ``2025-01-31``.
- ``rows``: kind of rows (``revisions``, ``comparisons``...) -> ``{"state", "rows_in", "rows_out", "quarantined"}``,
  and ``"cut"`` where dialogues were shortened to fit.

In format 1, which had no number, ``stages`` held the kinds of rows, ``finished`` the stages, both in the order of the
alphabet. It is read as format 2 and written as such by the next run in its directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import (
    Annotated,
    Any,
    NotRequired,  # typing's own cannot be checked before Python 3.12
)

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from rlaif.errors import RunDirError, format_value
from rlaif.storage.damage import damaged, reading
from rlaif.storage.files import write_atomically

Manifest = dict[str, Any]  #: parsed JSON


_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Stage(TypedDict):
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Rows(TypedDict):
    rows_in: _Count
    rows_out: _Count
    quarantined: _Count
    cut: NotRequired[_Count]


class _Shape(TypedDict):
    """What is read of a manifest; it may hold more."""

    stages: dict[str, _Stage]
    rows: dict[str, _Rows]
    config: NotRequired[str]
    began: NotRequired[date]
    inputs: NotRequired[dict[str, str]]
    models: NotRequired[dict[str, str]]
    versions: NotRequired[dict[str, str]]


_SHAPE = TypeAdapter(_Shape)

MANIFEST_FORMAT = 2
MANIFEST_FILE = "manifest.json"

#: The order in which runs of format 1 did things.
_STAGES_1 = ("read", "revise", "supervise", "label", "fit_preference_model", "reinforce", "evaluate")
_ROWS_1 = (
    *("prompts_red_team", "prompts_helpful", "pairs"),
    *("revisions", "helpful_samples", "answers_helpful_only", "supervise"),
    *("comparisons", "answers_sl_cai", "preferences", "fit_preference_model"),
    *("reinforce", "refresh_comparisons", "refresh_preferences", "answers_rl_cai"),
)


def new_manifest() -> Manifest:
    return {"format": MANIFEST_FORMAT, "rows": {}, "stages": {}}


def read_manifest(run_dir: Path) -> Manifest:
    """The manifest of a run directory, whichever format it was written in.

    Raises RunDirError when there is none, or one of a later format; DamagedError when it cannot be read.
    """
    path = run_dir / MANIFEST_FILE
    if not path.is_file():
        if (run_dir / "journal.sqlite").is_file():
            raise damaged(path, "is missing")
        raise RunDirError(f"{run_dir}: not a run directory (no {MANIFEST_FILE})")
    with reading(path):
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
        written = manifest.get("format", 1)
        if written == 1:
            manifest = _from_format_1(manifest)
        if written in (1, MANIFEST_FORMAT):
            _SHAPE.validate_json(json.dumps(manifest), strict=True)
            return manifest
    raise RunDirError(
        f"{path}: format={format_value(written)}: this version reads formats 1 to {MANIFEST_FORMAT}; "
        "use the version of rlaif that made the run, or choose another run_dir="
    )


def write_manifest(run_dir: Path, manifest: Manifest) -> None:
    write_atomically(run_dir / MANIFEST_FILE, json.dumps(manifest, indent=2) + "\n")


def _from_format_1(manifest: Manifest) -> Manifest:
    facts = {name: value for name, value in manifest.items() if name not in ("stages", "finished")}
    rows, stages = manifest.get("stages", {}), manifest.get("finished", {})
    return {**new_manifest(), **facts, "rows": _in_order(rows, _ROWS_1), "stages": _in_order(stages, _STAGES_1)}


def _in_order(named: Mapping[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
    """``named`` in ``order``; what is not in it comes last."""
    return dict(sorted(named.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
