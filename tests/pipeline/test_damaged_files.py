"""Every file of a run directory, cut, empty, garbage, of another version or gone, before every command that reads it.

Each command ends well, or with one line that names the file. ``rlaif doctor`` mends what can be mended, and the run
that follows ends as the first one did.
"""

import csv
import json
import os
import shutil
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.cli.__main__ import main
from tests.small_run import finished_run, left_by

FILES = (
    "config.yaml",
    "manifest.json",
    "journal.sqlite",
    "metrics.jsonl",
    "events.jsonl",
    "driver.json",
    "constitution.json",
    "quarantine.jsonl",
    "label_quality.json",
    "evaluation.json",
    "evaluation_answers.jsonl",
    "evaluation_labels.jsonl",
    "audit.json",
    "audit/key.json",
    "revisions/revisions.parquet",
    "comparisons/comparisons.parquet",
    "preferences/preferences.parquet",
    "preferences/refresh.parquet",
    "rollouts/rollouts.parquet",
    "training_sets/preference_fit.parquet",
    "checkpoints/policy-00000004/manifest.json",
    "models/sl_cai/config.json",
)
HARMS = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: b"\x00\xffgarbage\n" * 50,
    "null": lambda content: b"null\n",
    "another version": lambda content: b'{"format": 99, "new": [1]}\n',
    "of strings": lambda content: b'{"stages": "x", "rows": "x", "answers": "x", "overall": 3, "metrics": 1}\n',
    "gone": None,
}
#: Commands that read a run directory: their arguments by run, a place to write to, and the run's configuration.
COMMANDS = {
    "status": lambda run, place, config: ["status", run],
    "report": lambda run, place, config: ["report", run],
    "reaggregate": lambda run, place, config: ["reaggregate", run, "--out", place / "again.parquet"],
    "priorities": lambda run, place, config: [
        *("reaggregate", run, "--out", place / "priorities.parquet"),
        *("labelling.principles=2", "labelling.conflicts=priority"),
    ],
    "audit": lambda run, place, config: ["audit", "export", run, "--out", place / "audit"],
    "plan": lambda run, place, config: ["plan", config, f"run_dir={run}"],
    "scale": lambda run, place, config: ["scale", run, "labeller", "1"],
}
#: What a message may ask for.
ADVICE = ("rlaif doctor", "put back", "again", "restore it", "use the version", "not a run directory")
#: Each file is harmed in one way, those that all depends on in three, or, in the long test, everything in every way.
ALL = bool(os.environ.get("RLAIF_ALL_CRASH_POINTS"))
FOUND = {  #: by the long test
    ("config.yaml", "null"),
    ("events.jsonl", "empty"),
    ("evaluation_answers.jsonl", "another version"),
    ("metrics.jsonl", "cut"),
    ("preferences/preferences.parquet", "gone"),
}
CASES = [
    (file, harm)
    for number, file in enumerate(FILES)
    for turn, harm in enumerate(HARMS)
    if ALL or turn in ({0, 1, 6} if number < 3 else {number % len(HARMS)}) or (file, harm) in FOUND
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_world) -> Path:
    """A place with a finished, audited run, its configuration, and what a killed driver leaves behind."""
    place = finished_run(tiny_world, tmp_path_factory.mktemp("finished"))
    assert called("audit", "export", place / "run", "--out", place / "sheet", "--rows", "3") == 0
    sheet = place / "sheet" / "audit.csv"
    header, *rows = csv.reader(sheet.open(newline="", encoding="utf-8-sig"))
    judged = [["left" if name == "verdict" else value for name, value in zip(header, row, strict=True)] for row in rows]
    with sheet.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *judged])
    assert called("audit", "import", place / "run", sheet) == 0
    announcement = {"pid": 2**22 - 1, "host": socket.gethostname(), "address": "127.0.0.1:1", "namespace": "n"}
    facts = {**announcement, "control": "c", "auth_mode": None, "started": 0.0}
    (place / "run" / "driver.json").write_text(json.dumps(facts))
    return place


def called(*arguments: object) -> int:
    """The exit code of a command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def harmed(finished: Path, place: Path, file: str, harm: str) -> Path:
    run = place / "moved"
    shutil.copytree(finished / "run", run)
    path = run / file
    assert path.is_file()
    if HARMS[harm] is None:
        path.unlink()
    else:
        path.write_bytes(HARMS[harm](path.read_bytes()))
    return run


def check_message(code: int, error: str, file: str) -> None:
    assert code in (0, 1, 2)
    if code and "not running" not in error:
        named = file.rpartition("/")[0 if file.startswith("models/") else 2]
        assert named in error and any(advice in error for advice in ADVICE), error
        assert "Traceback" not in error


@pytest.mark.parametrize(("file", "harm"), CASES)
def test_a_damaged_file_is_named_or_does_not_matter(finished, tmp_path, capfd, file, harm):
    run = harmed(finished, tmp_path, file, harm)
    for arguments in COMMANDS.values():
        capfd.readouterr()
        code = called(*arguments(run, tmp_path, finished / "config.yaml"))
        check_message(code, capfd.readouterr().err, file)


@pytest.mark.parametrize(("file", "harm"), CASES)
def test_a_run_ends_as_it_did_or_names_the_damaged_file(finished, tmp_path, capfd, file, harm):
    run = harmed(finished, tmp_path, file, harm)
    capfd.readouterr()
    code = called("run", finished / "config.yaml", f"run_dir={run}", "--in-process")
    check_message(code, capfd.readouterr().err, file)


@pytest.mark.parametrize(("file", "harm"), CASES)
def test_the_doctor_mends_it_and_the_run_ends_as_it_did(finished, tmp_path, capfd, file, harm):
    run = harmed(finished, tmp_path, file, harm)
    is_whole = HARMS[harm] and (run / file).read_bytes() == (finished / "run" / file).read_bytes()  # it is empty
    capfd.readouterr()
    mended = called("doctor", run) == 0
    said = "".join(capfd.readouterr())
    assert Path(file).name in said or "models/" in said or harm == "gone" or is_whole
    if not mended:
        assert any(advice in said for advice in ADVICE), said
        return
    assert called("doctor", run) == 0
    assert "nothing is damaged" in capfd.readouterr().out
    assert called("run", finished / "config.yaml", f"run_dir={run}", "--in-process") == 0, capfd.readouterr().err
    assert left_by(run) == left_by(finished / "run")
    assert called("report", run) == 0


# ----------------------------------------------------------------------------------- tables that hold something else
@pytest.mark.parametrize("value", [float("nan"), -1.0, 2.0, 7, "x"])
def test_a_table_of_other_labels_is_refused_by_all_and_mended(finished, tmp_path, capfd, value):
    run = tmp_path / "moved"
    shutil.copytree(finished / "run", run)
    path = run / "preferences" / "preferences.parquet"
    table = pq.read_table(path)
    labels = pa.array([value] * table.num_rows)
    pq.write_table(table.set_column(table.schema.get_field_index("prob"), "prob", labels), path)
    for command in ("report", "reaggregate", "audit"):
        assert called(*COMMANDS[command](run, tmp_path, finished / "config.yaml")) == 2
        assert f"rlaif doctor {run} mends it" in capfd.readouterr().err.replace("\n", " ")
    assert called("doctor", run) == 0
    assert "written again from the journal" in " ".join(capfd.readouterr().out.split())
    assert pq.read_table(path) == table
    assert called("report", run) == 0


# -------------------------------------------------------------------------------- what is no file where one has to be
PLACES = (
    *("journal.sqlite", "driver.json", "report.html", "preferences/preferences.parquet", "quarantine.jsonl", ".lock"),
    *("audit/key.json", "evaluation.json", "config.yaml", "metrics.jsonl", "preferences", "audit/secret"),
)
KINDS = ("directory", "loop", "broken link", "pipe")


def replaced(path: Path, kind: str) -> None:
    """``path`` becomes something else; a directory becomes a file."""
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("a file")
        return
    path.unlink()
    if kind == "directory":
        path.mkdir()
        (path / "theirs").write_text("kept")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path.name if kind == "loop" else "nowhere")


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (place, kind)
        for number, place in enumerate(PLACES)
        for turn, kind in enumerate(KINDS)
        if ALL or turn == number % 4
    ],
)
def test_what_is_no_file_is_named_and_set_aside(finished, tmp_path, capfd, place, kind):
    run = tmp_path / "moved"
    shutil.copytree(finished / "run", run)
    replaced(run / place, kind)
    num_theirs = len([*run.rglob("theirs")])
    for arguments in (*(COMMANDS[name](run, tmp_path, "") for name in ("report", "audit")), ["export", run, tmp_path]):
        capfd.readouterr()
        code = called(*arguments)
        error = capfd.readouterr().err
        assert code in (0, 2) and "Traceback" not in error
        assert not code or place in error
    code = called("doctor", run)
    said = " ".join("".join(capfd.readouterr()).split())
    assert code in (0, 2) and place in said
    if place == ".lock":
        assert "remove it" in said
        return
    assert [*(run / place).parent.glob(f"{Path(place).name}*.damaged")]
    code = called("doctor", run)
    said = "".join(capfd.readouterr())
    assert "nothing is damaged" in said or (code == 2 and any(advice in said for advice in ADVICE))
    assert [path.read_text() for path in run.rglob("theirs")] == ["kept"] * num_theirs
