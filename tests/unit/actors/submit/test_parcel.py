"""What travels with a job: enough to run elsewhere, no private files, and files identified by their content."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from actors.submit import parcel
from actors.submit.parcel import CODE, ROOT, pack
from rlaif.config.contradictions import flatten
from rlaif.config.files import FILE_KEYS, differences, load_config
from rlaif.config.schema import Config
from rlaif.errors import UserError

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


# ------------------------------------------------------------------------------------------- what does not travel
@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packages with what may lie about in a checkout."""
    root = tmp_path / "checkout"
    for name in (*CODE, "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "outside.yaml").write_text("secret: outside\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "more.py").touch()
    for folder in (root / "configs", root / "rlaif", root / "actors" / "cli"):
        for name in STRAYS:
            (folder / name).write_text("PASSWORD=x\n")
        (folder / ".hidden").mkdir()
        (folder / ".hidden" / "x.py").touch()
        (folder / "dangling.yaml").symlink_to(tmp_path / "nowhere.yaml")
        (folder / "out.yaml").symlink_to(tmp_path / "outside.yaml")
        (folder / "out").symlink_to(tmp_path / "outside")
        (folder / "loop").symlink_to(folder)
    monkeypatch.setattr(parcel, "ROOT", root)
    monkeypatch.setattr(parcel, "SHIPPED_CONFIGS", root / "configs")
    return root


STRAYS = (".env", ".env.py", ".netrc", "id_rsa", "key.pem", "service.json", "auth_token", "notes.txt", "a.key", "x.pyc")


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def test_what_lies_about_in_the_checkout_does_not_travel(checkout: Path, config: Config, tmp_path: Path) -> None:
    packed(config, tmp_path / "parcel")
    found = names(tmp_path / "parcel")
    files = {path.relative_to(ROOT) for folder in (*CODE, "configs") for path in (ROOT / folder).rglob("*.*")}
    files = {path for path in files if "__pycache__" not in path.parts}
    expected = {str(path).replace("configs/", "rlaif/config/shipped/", 1) for path in files}
    assert {name for name in found if not name.startswith("files/")} == expected | {"config.yaml"}
    assert not any(path.is_symlink() for path in (tmp_path / "parcel").rglob("*"))


@pytest.mark.parametrize("kind", ["shape", "value"])
@pytest.mark.parametrize("where", ["module", "config", "named"])
def test_a_secret_stops_the_submission_and_is_not_repeated(
    checkout: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, kind: str
) -> None:
    secret = "hf_" + "aB3" * 12 if kind == "shape" else "correct horse battery"
    monkeypatch.setenv("DB_PASSWORD", "correct horse battery")
    if where == "config":
        config = config.model_copy(update={"run_dir": f"/mnt/shared/{secret}"})
    file = checkout / "rlaif" / "mine.py" if where == "module" else Path(flatten(config)[LEXICON])
    if where != "config":
        file.write_text(f"token = '{secret}'\n")
    named = "the configuration" if where == "config" else file.name
    with pytest.raises(UserError, match=f"{named}: holds a key or token, and would be sent") as refused:
        packed(config, tmp_path / "parcel")
    assert secret not in str(refused.value)


# ------------------------------------------------------------------------------------------- what goes into the image
def test_the_image_gets_listed_files_only() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*", "everything is left out that is not listed"
    listed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert listed == {*CODE, "configs", "requirements", "pyproject.toml", "README.md", "LICENSE"}
    assert {"**/.*", "**/*.pem", "**/*.key"} <= set(rules)
    copied = re.findall(r"^COPY --chown=ray:users (\S+)", (ROOT / "cluster" / "Dockerfile").read_text(), re.MULTILINE)
    assert all(source == "." or source.partition("/")[0] in listed for source in copied)


@pytest.mark.parametrize("lock", ["cpu", "gpu"])
def test_every_locked_library_has_hashes_and_is_installed_by_them(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    libraries = [part for part in re.split(r"\n(?=[a-z])", text) if "==" in part.partition("\n")[0]]
    assert len(libraries) > 200
    for library in libraries:
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$", library, re.MULTILINE), library
    installed = "".join((ROOT / name).read_text() for name in ("Makefile", "cluster/Dockerfile"))
    lines = [line for line in installed.splitlines() if "pip install" in line and f"{lock}.lock" in line]
    assert len(lines) == 1 and "--require-hashes" in lines[0]
