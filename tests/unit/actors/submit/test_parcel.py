"""What travels with a job: enough to run elsewhere, no private files, and files identified by their content."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from actors.submit.parcel import pack
from rlaif.config.contradictions import flatten
from rlaif.config.files import FILE_KEYS, differences, load_config
from rlaif.config.schema import Config

LEXICON = "miniature.lexicon"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration that names a file of its own under every key that can hold one."""
    values: dict = {"run_dir": "/mnt/shared/runs/one", "resources": {"cpus": 3}, "dialogue_format": "chat_template"}
    for key in FILE_KEYS:
        path = tmp_path / "own" / f"{key.replace('.', '_')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {key}\n")
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = str(path)
    return Config.model_validate(values)


def packed(config: Config, directory: Path) -> Config:
    directory.mkdir()
    pack(config, directory)
    return load_config(directory / "config.yaml")


def test_the_configuration_arrives_as_it_was_with_its_files_beside_it(config: Config, tmp_path: Path) -> None:
    arrived = packed(config, tmp_path / "parcel")
    assert set(differences(config, arrived)) == {"resources.address", *FILE_KEYS}
    assert arrived.resources.address == "auto"
    for key in FILE_KEYS:
        copy = Path(flatten(arrived)[key])
        assert copy.is_relative_to(tmp_path / "parcel") and copy.read_text() == f"# {key}\n"


def test_a_run_is_the_same_when_it_is_sent_again_and_another_when_a_file_changed(
    config: Config, tmp_path: Path
) -> None:
    first = packed(config, tmp_path / "first")
    assert differences(first, packed(config, tmp_path / "second")) == []
    Path(flatten(config)[LEXICON]).write_text("# another world\n")
    assert differences(first, packed(config, tmp_path / "third")) == [LEXICON]


def test_files_that_did_not_travel_are_compared_by_their_whole_path(config: Config, tmp_path: Path) -> None:
    """Two files with the same name may differ in content, so a run must not resume with the other one."""
    values = config.model_dump()
    values["miniature"]["lexicon"] = str(tmp_path / "elsewhere" / Path(flatten(config)[LEXICON]).name)
    assert differences(config, Config.model_validate(values)) == [LEXICON]


def test_the_code_in_it_runs_and_nothing_else_is_in_it(tmp_path: Path) -> None:
    packed(Config(run_dir="/mnt/shared/runs/one"), tmp_path / "parcel")
    assert {path.name for path in (tmp_path / "parcel").iterdir()} == {"rlaif", "actors", "config.yaml"}
    assert not list((tmp_path / "parcel").rglob("__pycache__"))
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import actors, rlaif.constitution.principles as c, rlaif.config.files as f\n"
            "print(actors.__file__, c.SHIPPED_CONSTITUTIONS.is_dir(), f.config_file('quickstart').is_file())\n"
            "print(f.SHIPPED_CONFIGS)",
        ],
        cwd=tmp_path / "parcel",
        env={"PYTHONPATH": str(tmp_path / "parcel")},
        capture_output=True,
        text=True,
    )
    parcel = tmp_path / "parcel"
    assert said.stdout.split() == [
        str(parcel / "actors" / "__init__.py"),
        "True",
        "True",
        str(parcel / "rlaif" / "config" / "shipped"),
    ]
