"""Whatever ``rlaif run`` refuses before it makes a run directory and starts Ray, ``rlaif plan`` refuses alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from actors.cli.__main__ import main
from rlaif.config.files import load_config
from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.storage.run_dir import RunDir
from tests.conftest import tiny_config_of
from tests.tiny_models import saved, tiny_pm


@pytest.fixture
def config(tiny_world: dict[str, str], tmp_path: Path) -> str:
    """A configuration that both commands accept."""
    values = tiny_config_of(tiny_world, tmp_path / "run").model_dump(mode="json")
    for role in ("generator", "labeller", "scorer"):
        values[role]["engine"] = "vllm"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture
def rlaif(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def command(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()  # what making a model printed
        with pytest.raises(SystemExit) as left:
            main([*arguments])
        return int(left.value.code or 0), capsys.readouterr().err

    return command


def constitution(path: Path, *principles: str) -> str:
    path.write_text(f"{{name: c, version: '1', principles: [{', '.join(principles)}]}}")
    return f"constitution={path}"


def no_tokenizer(path: Path) -> str:
    saved(tiny_pm(3), path)
    (path / "tokenizer.json").unlink()
    return f"supervision.base_model={path}"


def other_tokenizer(path: Path) -> str:
    saved(tiny_pm(3), path)
    file = path / "tokenizer.json"
    tree = json.loads(file.read_text())
    vocabulary = tree["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(tree))
    return f"preference_model.base_model={path}"


def text_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


JUDGES = "{id: a, category: honesty, source: s, comparison: Truer}"
REVISES = "{id: b, category: honesty, source: s, critique_request: Lies, revision_request: Fix}"
REFUSALS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "a value": (lambda _: ["sampling.max_tokens=0"], "sampling.max_tokens=0: must be at least 1"),
    "a key": (lambda _: ["generatr.min=1"], "did you mean generator"),
    "a contradiction": (lambda _: ["generator.min=2"], "generator.min=2: must be at most generator.max=1"),
    "no constitution": (lambda _: ["constitution=none_such"], "sixteen_principles"),
    "nothing to revise by": (lambda d: [constitution(d / "c.yaml", JUDGES)], "has no principle with critique_request"),
    "nothing to judge by": (lambda d: [constitution(d / "c.yaml", REVISES)], "has 0 principles with a comparison"),
    "a lexicon": (lambda d: [f"miniature.lexicon={d / 'gone.yaml'}"], "gone.yaml: no such file"),
    "a template": (lambda d: [f"labelling.template={text_file(d / 't.txt', 'Which?')}"], "exactly once"),
    "examples": (lambda d: [f"labelling.examples={text_file(d / 'e.yaml', '[{}]')}"], "0.prompt: is missing"),
    "no data": (lambda _: ["data.red_team=/nowhere.jsonl"], "data.red_team=/nowhere.jsonl: no such file"),
    "a kind of data": (lambda d: [f"data.helpful={text_file(d / 'a.txt', '')}"], "unknown kind of file"),
    "a miniature's data": (lambda _: ["data.votes=miniature:votess"], "data.votes=miniature:votess: no such"),
    "a miniature's model": (lambda _: ["generator.model=miniature:gen"], "generator.model=miniature:gen: no such"),
    "no model": (lambda _: ["generator.model=./nowhere"], "generator.model=./nowhere: no such directory"),
    "a model without a tokenizer": (lambda d: [no_tokenizer(d / "model")], "it lacks tokenizer.json"),
    "another tokenizer": (lambda d: [other_tokenizer(d / "model")], "they must share one"),
    "a short model": (lambda _: ["labeller.max_length=9999"], "max_length=9999 is beyond the model's 256 positions"),
    "a model of another kind": (lambda d: [f"generator.model={saved(tiny_pm(3), d / 'm')}"], "generates no text"),
    "an engine": (lambda _: ["scorer.engine=hf"], "scorer.engine=hf: this engine runs in one process"),
    "resources": (lambda _: ["labeller.gpus=3"], "labeller: 1 x 3 = 3; lower labeller.min or labeller.gpus"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_plan_refuses_what_run_refuses(case, config, rlaif, tmp_path) -> None:
    overrides, said = REFUSALS[case]
    given = overrides(tmp_path)
    refused = rlaif("run", config, *given)
    assert refused[0] == 2 and said in refused[1], refused
    assert rlaif("plan", config, *given) == refused
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("stage", "read", "CONFIG"),
        ("label", "PAIRS", "--config", "CONFIG"),
        ("submit", "CONFIG", "--address", "http://127.0.0.1:9", "run_dir=/mnt/shared/run"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_makes_the_same_checks(command, config, tiny_world, rlaif) -> None:
    """Those that do not depend on where the work is done; nothing is sent."""
    files = {"CONFIG": config, "PAIRS": tiny_world["pairs"]}
    for given, line in (
        ("constitution=none_such", "constitution=none_such: no such file"),
        ("labelling.principles=40", "labels need labelling.principles=40"),
        ("labeller.engine=hf", "labeller.engine=hf: this engine runs in one process"),
    ):
        code, err = rlaif(*(files.get(argument, argument) for argument in command), given)
        assert code == 2 and line in err, err
    code, err = rlaif(*(files.get(argument, argument) for argument in command), "miniature.lexicon=a", "constitution=b")
    assert code == 2 and "miniature.lexicon=" in err and "constitution=b" in err, err


@pytest.mark.parametrize(
    ("changes", "under", "said"),
    [
        (["seed=7"], None, "made with another configuration; different: seed"),
        ([], "nine_points", "finished stages depend on what has changed since:\nconstitution: has changed"),
    ],
)
def test_plan_refuses_the_run_directory_that_run_refuses(changes, under, said, config, rlaif) -> None:
    settings: Config = load_config(config)
    run_dir = RunDir(Path(settings.run_dir), settings)
    run_dir.keep_inputs({"constitution": load_constitution(under or settings.constitution).hash})
    for stage in ("read", "revise"):
        with run_dir.time_stage(stage):
            pass
    run_dir.close()
    refused = rlaif("run", config, *changes)
    assert refused[0] == 2 and said in refused[1], refused
    assert rlaif("plan", config, *changes) == refused


def test_plan_starts_and_makes_nothing(config, rlaif, tmp_path) -> None:
    cache = tmp_path / "cache"
    code, err = rlaif("plan", config, "data.votes=miniature:votes", f"miniature.cache_dir={cache}")
    assert (code, err) == (0, "")
    assert not (tmp_path / "run").exists() and not cache.exists()


def test_a_stage_that_there_is_not_is_refused_before_anything_is_made(config, rlaif, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("actors.driver.drive", None)
    code, said = rlaif("run", config, "--from", "nosuch")
    assert code == 2 and "stage nosuch: no such stage in this configuration; one of: read" in " ".join(said.split())
    code, said = rlaif("run", config, "--from", "fit_preference_model", "reinforcement.reward=direct")
    assert code == 2 and "stage fit_preference_model: no such stage" in " ".join(said.split())
    assert not (tmp_path / "run").exists()
