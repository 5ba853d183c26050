"""A wheel built from the tree and installed elsewhere has all that the commands need, without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif.config.files import SHIPPED_CONFIGS, config_file, load_config
from rlaif.errors import ConfigError

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OFFLINE = ("--quiet", "--no-deps", "--no-index")
Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", out, ROOT], check=True, timeout=120)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", *OFFLINE, "--target", target, wheel], check=True, timeout=120)
    return target


@pytest.fixture
def python(installed: Path, tmp_path: Path) -> Python:
    """Python with the installed wheel, in a directory that has nothing to do with the checkout."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_a_wheel_holds_every_file_of_the_tree(wheel: Path) -> None:
    packages = [path for name in ("rlaif", "actors") for path in (ROOT / name).rglob("*") if path.is_file()]
    expected = {path.relative_to(ROOT).as_posix() for path in packages if "__pycache__" not in path.parts}
    configs = [path for path in (ROOT / "configs").rglob("*") if path.is_file()]
    expected |= {f"rlaif/config/shipped/{path.relative_to(ROOT / 'configs').as_posix()}" for path in configs}
    assert expected <= set(zipfile.ZipFile(wheel).namelist())
    suffixes = {Path(name).suffix for name in expected}
    assert {".py", ".yaml", ".jinja", ".css"} <= suffixes


def test_shipped_configurations_are_planned_and_run_by_name(python: Python, installed: Path) -> None:
    where = python("-c", "import rlaif, actors; print(rlaif.__file__, actors.__file__)")
    assert where.stdout.count(str(installed)) == 2, where
    planned = python("-m", "actors.cli", "plan", "quickstart")
    assert planned.returncode == 0 and "The declared resources are enough" in planned.stdout, planned
    refused = python("-m", "actors.cli", "run", "quickstart", "resources.cpus=0.5")
    assert refused.returncode == 2 and "lower generator.min or generator.cpus" in refused.stderr, refused
    unknown = python("-m", "actors.cli", "plan", "quickstrat")
    assert unknown.returncode == 2 and "concurrent, eight_gpu, evaluate, gpu_smoke, label, " in unknown.stderr, unknown


def test_a_configuration_of_ones_own_extends_a_shipped_one(python: Python, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: quickstart\nlabelling: {examples: labels}\nrun_dir: runs/own\n")
    planned = python("-m", "actors.cli", "plan", "own.yaml")
    assert planned.returncode == 0, planned


def test_labels_need_no_configuration(python: Python, tiny_world: dict[str, str], tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "Q?", "answer_1": "yes", "answer_2": "no"}) + "\n")
    command = ("label", "pairs.jsonl", "--model", tiny_world["feedback"], "--in-process", "labeller.engine=scripted")
    done = python("-m", "actors.cli", *command)
    assert done.returncode == 0, done
    assert (tmp_path / "runs" / "labels" / "preferences" / "preferences.parquet").is_file()


def test_what_travels_with_a_job_is_whole(python: Python, tmp_path: Path) -> None:
    pack = (
        "from pathlib import Path; from actors.submit.parcel import pack; from rlaif.config.files import load_config\n"
        "Path('parcel').mkdir(); pack(load_config('quickstart', ['run_dir=/mnt/shared/run']), Path('parcel'))"
    )
    packed = python("-c", pack)
    assert packed.returncode == 0, packed
    parcel = tmp_path / "parcel"
    assert {path.name for path in parcel.iterdir()} == {"rlaif", "actors", "config.yaml"}
    assert (parcel / "rlaif" / "config" / "shipped" / "quickstart.yaml").is_file()
    assert (parcel / "rlaif" / "miniature" / "lexicon.yaml").is_file()


# ------------------------------------------------------------------------------------------------------- names
def test_a_file_in_the_working_directory_goes_before_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file("quickstart") == SHIPPED_CONFIGS / "quickstart.yaml"
    assert load_config("quickstart").run_dir == "runs/quickstart"
    Path("quickstart").write_text("run_dir: runs/mine\n")
    assert load_config("quickstart").run_dir == "runs/mine"


def test_a_base_in_the_same_directory_goes_before_a_shipped_one(tmp_path: Path) -> None:
    top = tmp_path / "top.yaml"
    top.write_text("extends: quickstart\n")
    assert load_config(top).run_dir == "runs/quickstart"
    (tmp_path / "quickstart").write_text("run_dir: runs/base\n")
    assert load_config(top).run_dir == "runs/base"


@pytest.mark.parametrize("name", ["quickstrat", "configs/gone.yaml", "gone/quickstart"])
def test_an_unknown_name_lists_the_shipped_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = "concurrent, eight_gpu, evaluate, gpu_smoke, label, multi_node, one_gpu, paper, quickstart, "
    shipped += "scripted, small_real"
    with pytest.raises(ConfigError, match=rf"^{name}: no such file; give a YAML file, or .*: {shipped}$"):
        load_config(name)
