"""Whatever a text holds, the terminal shows it and obeys nothing of it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from actors.cli.__main__ import main
from actors.cli.console import PlainConsole, shown
from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from rlaif.storage.run_dir import RunDir

TITLE = "\x1b]0;owned\x07"
HOSTILE = f"{TITLE}\x9b31m\x1b[2J\r\x08\x7f\u202egnp.exe\u2066"
STYLES = re.compile(r"\x1b\[[0-9;]*m")  #: what rich itself writes on a terminal
REORDERS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def obeyed(text: str) -> set[str]:
    return {c for c in text if (unicodedata.category(c) == "Cc" and c not in "\n\t") or c in REORDERS}


@pytest.fixture
def rlaif(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs the command line; its exit code and all that it printed."""
    import typer.rich_utils

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setattr(typer.rich_utils, "Console", typer.rich_utils.Console)

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as leaving:
            main(list(arguments))
        code = leaving.value.code
        assert code is None or isinstance(code, int)
        return code or 0, "".join(capsys.readouterr())

    return run


@given(st.text(st.characters(codec=None, categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Ll"])))
def test_what_is_shown_can_be_written_and_is_obeyed_by_no_terminal(text: str) -> None:
    assert obeyed(shown(text)) == set()
    shown(text).encode()


def test_text_in_any_script_stays_as_it_is() -> None:
    text = "naïve\tنص\u200cعربی 👩\u200d👧 [red]b[/red] :smile:\n"
    assert shown(text) == text
    assert shown("a\r\nb\x1b") == "a\nb\\x1b"


def test_tables_and_titles_are_texts_too() -> None:
    file = io.StringIO()
    table = Table("column", HOSTILE, title=f"runs/odd[/b][red]:smile:{HOSTILE}")
    table.add_row("[bold]x", HOSTILE)
    PlainConsole(file=file, markup=False, emoji=False, force_terminal=True, width=200).print(table)
    assert obeyed(STYLES.sub("", file.getvalue())) == set()
    assert "runs/odd[/b][red]:smile:" in STYLES.sub("", file.getvalue()) and "[bold]x" in file.getvalue()


def test_findings_of_a_constitution(rlaif, tmp_path: Path) -> None:
    texts = {"critique_request": HOSTILE, "revision_request": HOSTILE, "comparison": HOSTILE}
    principle = {"id": f"a{TITLE}", "category": "honesty", "source": "ours", **texts}
    files = []
    for name, version in (("one", "1"), ("two", "2")):
        texts["comparison"] += version
        content = {"name": HOSTILE, "version": version, "principles": [{**principle, **texts}]}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(content))
        files.append(str(tmp_path / f"{name}.yaml"))
    for command in (("lint", files[0]), ("diff", *files), ("import", files[0], "--out", str(tmp_path / "out.yaml"))):
        _, printed = rlaif("constitution", *command)
        assert printed and obeyed(printed) == set()


def test_names_of_columns_and_files(rlaif, tmp_path: Path) -> None:
    file = tmp_path / f"a{TITLE}.csv"
    file.write_text(f"{HOSTILE},b\nx\n")
    for command in (("data", str(file)), ("label", str(file), "--out", str(tmp_path / "out"), "--in-process")):
        code, printed = rlaif(*command)
        assert code == 2
        assert "\\x1b]0;owned" in printed and obeyed(printed) == set()


@pytest.mark.parametrize(
    "arguments", [("stage", TITLE, "scripted"), (HOSTILE,), ("run", f"--{HOSTILE}"), ("scale", "x", "labeller", TITLE)]
)
def test_arguments_that_are_wrong(rlaif, arguments: tuple[str, ...]) -> None:
    code, printed = rlaif(*arguments)
    assert code == 2
    assert printed and obeyed(printed) == set()


@pytest.mark.parametrize("name", ["odd[/b]", "exp[red]", "exp :smile: [link=x]y[/link]", f"exp{TITLE}"])
@pytest.mark.parametrize("command", ["report", "status"])
def test_a_run_directorys_name_is_shown_as_it_is(rlaif, tmp_path: Path, name: str, command: str) -> None:
    path = tmp_path / name
    run_dir = RunDir(path, Config(run_dir=str(path)))
    run_dir.write_manifest()
    run_dir.events.write("stage_started", stage=f"read{TITLE}")
    run_dir.close()
    code, printed = rlaif(command, str(path))
    assert code == 0
    assert shown(name) in printed.replace("\n", "") and obeyed(printed) == set()


def test_a_real_terminal(tmp_path: Path) -> None:
    """What arrives at a terminal, where rich styles it, and where a bare error would be printed raw."""
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(Config(run_dir=str(tmp_path / f"run{TITLE}"), constitution=f"none{TITLE}")))
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "actors.cli", "plan", str(config)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        printed = b""
        while chunk := _read(ours):
            printed += chunk
    os.close(ours)
    text = STYLES.sub("", printed.decode()).replace("\r\n", "\n")
    assert process.returncode == 2
    assert "none\\x1b]0;owned\\x07" in text and obeyed(text) == set()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 2**16)
    except OSError:  # the other side is closed
        return b""
