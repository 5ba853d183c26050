"""Paths in a configuration that is sent to a cluster."""

from __future__ import annotations

import pytest

from rlaif.config.files import flatten
from rlaif.config.schema import Config
from rlaif.preflight import check_shared

SHARED = {
    "run_dir": "/mnt/shared/runs/one",
    "data": {"red_team": "/mnt/shared/prompts.jsonl", "helpful": "hf:some/set", "helpful_pairs": None, "votes": None},
    "evaluation": {"red_team": "/mnt/shared/a.jsonl", "helpful": "/mnt/shared/b.jsonl"},
    "generator": {"model": "/mnt/shared/model"},
    "labeller": {"model": "organisation/name"},
    "supervision": {"base_model": "organisation/base"},
    "preference_model": {"base_model": "organisation/base"},
}


def test_absolute_paths_and_names_can_go_to_a_cluster() -> None:
    assert check_shared(Config.model_validate(SHARED)) == []


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("run_dir", "runs/one"),
        ("data", {"red_team": "prompts.jsonl"}),
        ("generator", {"model": "./model"}),
        ("supervision", {"base_model": "~/base"}),
        ("miniature", {"cache_dir": "~/cache"}),
    ],
)
def test_what_only_this_machine_sees_is_named(section: str, values: object) -> None:
    changed = SHARED[section] | values if section in SHARED and isinstance(values, dict) else values
    config = Config.model_validate(SHARED | {section: changed})
    if section == "miniature":  # its directory matters only when something from it is used
        config = config.model_copy(update={"data": config.data.model_copy(update={"votes": "miniature:votes"})})
    key = section if isinstance(values, str) else f"{section}.{next(iter(values))}"
    (line,) = check_shared(config)
    assert line.startswith(f"{key}={flatten(config)[key]}: ") and "absolute path" in line
