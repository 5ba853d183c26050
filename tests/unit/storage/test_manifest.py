"""Manifests of every format are read, or refused by name."""

import json

import pytest

from rlaif.config.schema import Config
from rlaif.errors import RunDirError
from rlaif.evaluation.findings import Findings
from rlaif.storage.damage import DamagedError
from rlaif.storage.manifest import new_manifest, read_manifest
from rlaif.storage.run_dir import RunDir

#: As it was written before formats had a number: kinds of rows under "stages", stages under "finished", both sorted.
FORMAT_1 = """\
{
  "constitution": "56ca6c98d471dca2",
  "finished": {
    "label": {
      "seconds": 1.008
    },
    "read": {
      "seconds": 0.025
    },
    "revise": {
      "seconds": 1.686
    },
    "supervise": {
      "seconds": 0.213
    }
  },
  "stages": {
    "comparisons": {
      "quarantined": 0,
      "rows_in": 12,
      "rows_out": 12,
      "state": "done"
    },
    "prompts_red_team": {
      "quarantined": 1,
      "rows_in": 13,
      "rows_out": 12,
      "state": "done"
    },
    "reinforce": {
      "quarantined": 0,
      "rows_in": 24,
      "rows_out": 24,
      "state": "done"
    },
    "revisions": {
      "quarantined": 2,
      "rows_in": 12,
      "rows_out": 10,
      "state": "done"
    }
  },
  "versions": {
    "rlaif": "0.1.0"
  }
}
"""


def test_format_1_is_read_in_the_order_of_the_story(tmp_path):
    (tmp_path / "manifest.json").write_text(FORMAT_1)
    manifest = read_manifest(tmp_path)
    assert list(manifest["stages"].items()) == [
        ("read", {"seconds": 0.025}),
        ("revise", {"seconds": 1.686}),
        ("supervise", {"seconds": 0.213}),
        ("label", {"seconds": 1.008}),
    ]
    assert list(manifest["rows"]) == ["prompts_red_team", "revisions", "comparisons", "reinforce"]
    assert manifest["rows"]["revisions"] == {"state": "done", "rows_in": 12, "rows_out": 10, "quarantined": 2}
    assert manifest["format"] == 2 and "finished" not in manifest
    assert (manifest["constitution"], manifest["versions"]) == ("56ca6c98d471dca2", {"rlaif": "0.1.0"})


def test_findings_of_a_run_of_format_1(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "manifest.json").write_text(FORMAT_1)
    findings = Findings(tmp_path)
    assert list(findings.finished) == ["read", "revise", "supervise", "label"]
    assert findings.rows["comparisons"]["rows_out"] == 12


def test_a_later_format_is_refused_by_name(tmp_path):
    config = Config(run_dir=str(tmp_path))
    RunDir(tmp_path, config).close()
    (tmp_path / "manifest.json").write_text('{"format": 3, "rows": {}, "stages": {}}')
    for opened in (lambda: read_manifest(tmp_path), lambda: RunDir(tmp_path, config)):
        with pytest.raises(RunDirError, match=r"manifest\.json: format=3: this version reads formats 1 to 2; use"):
            opened()


def test_a_directory_without_a_manifest_is_no_run(tmp_path):
    with pytest.raises(RunDirError, match="not a run directory"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("value", [-1, 2**63, 10**400, 1.5, float("nan"), float("inf"), None, "1", [1]])
@pytest.mark.parametrize("name", ["rows_in", "rows_out", "quarantined", "cut", "seconds"])
def test_a_number_that_counts_nothing_is_damage(tmp_path, name, value):
    rows = {"revisions": {"rows_in": 1, "rows_out": 1, "quarantined": 0, name: value}}
    facts = {"stages": {"revise": {"seconds": value}}} if name == "seconds" else {"rows": rows}
    (tmp_path / "manifest.json").write_text(json.dumps({**new_manifest(), **facts}))
    if name == "seconds" and value in (2**63, 1.5):
        assert read_manifest(tmp_path)["stages"]["revise"]["seconds"] == value
        return
    with pytest.raises(DamagedError, match=r"manifest\.json: is damaged, or of another version: .*; it holds"):
        read_manifest(tmp_path)


def test_a_format_of_any_length_is_quoted_in_few_words(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "x" * 100_000}))
    with pytest.raises(RunDirError, match="this version reads formats") as refusal:
        read_manifest(tmp_path)
    assert len(str(refusal.value)) < 400 + len(str(tmp_path))
