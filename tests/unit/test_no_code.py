"""What is loaded is data: models, tokenizers and checkpoints bring no code, whoever made them."""

from __future__ import annotations

import ast
import contextlib
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlaif.config.schema import Optimization, PoolSettings
from rlaif.config.trainer import Trainer
from rlaif.engines.hf import HFBackend
from rlaif.engines.models import read_model
from rlaif.errors import ModelError
from rlaif.jobs import Rank
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.training.deepspeed import DeepSpeedModel, start_rank
from rlaif.training.models import load_policy, load_scorer
from tests.tiny_models import MAX_LENGTH, saved, tiny_lm

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for folder in ("rlaif", "actors") for path in (ROOT / folder).rglob("*.py"))
UNPICKLERS = {"pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "dill.loads"}


# ------------------------------------------------------------------------------------------------- in all of the code
def unsafe_calls(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name.endswith(".from_pretrained") and said.get("trust_remote_code") != "False":
                yield f"line {node.lineno}: {name} without trust_remote_code=False"
            if name == "LLM" and (said.get("trust_remote_code"), said.get("load_format")) != ("False", "'safetensors'"):
                yield f"line {node.lineno}: {name} may run a model's code"
            if name == "torch.load" and said.get("weights_only") != "True":
                yield f"line {node.lineno}: {name} without weights_only=True"
            if name in UNPICKLERS or name in ("eval", "exec", "yaml.unsafe_load"):
                yield f"line {node.lineno}: {name}"
            if name == "yaml.load" and "Safe" not in said.get("Loader", "") and "Strict" not in said.get("Loader", ""):
                yield f"line {node.lineno}: {name} without a safe loader"


@pytest.mark.parametrize("module", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_no_module_loads_code(module: Path) -> None:
    assert list(unsafe_calls(module.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "AutoModel.from_pretrained(path)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.loads(data)",
        "LLM(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
    ],
)
def test_a_call_that_may_load_code_is_seen(line: str) -> None:
    assert len(list(unsafe_calls(line))) == 1


# ------------------------------------------------------------------------------------------------- models with code
@pytest.fixture
def with_code(tmp_path: Path) -> tuple[str, Path]:
    """A model whose configuration and tokenizer name classes in a file beside them, and what that file would make."""
    made, directory = tmp_path / "made", tmp_path / "model"
    path = saved(tiny_lm(0, tied=True), directory)
    code = f"from pathlib import Path\nPath({str(made)!r}).touch()\nclass Mine: ...\n"
    (directory / "mine.py").write_text(code)
    names = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    classes = {name: "mine.Mine" for name in names}
    change(directory / "config.json", model_type="mine", auto_map=classes)
    change(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Mine", "mine.Mine"]})
    return path, made


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_models_own_code_is_neither_run_nor_asked_about(
    with_code: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = with_code

    def ask(*_: object) -> str:
        raise AssertionError("the user was asked whether to run it")

    monkeypatch.setattr("builtins.input", ask)
    for load in (lambda: load_policy(path, "float32"), lambda: load_scorer(path, "float32")):
        with pytest.raises(ModelError, match="cannot be loaded as a model"):
            load()
    with contextlib.suppress(ModelError):
        load_tokenizer(path)
    served = read_model(
        saved(tiny_lm(0, tied=True), made.parent / "plain"), field="", max_length=MAX_LENGTH, pooling=False
    )
    with pytest.raises((OSError, ValueError)):
        HFBackend(replace(served, path=path), PoolSettings(engine="hf"))
    assert not made.exists()


# ------------------------------------------------------------------------------------------------- checkpoints
class Malice:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def small_model(trainer: Trainer) -> DeepSpeedModel:
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 1).to(getattr(torch, trainer.dtype))
    return DeepSpeedModel.supervised(module, trainer, Rank(), Optimization(epochs=1, batch_size=2, learning_rate=1e-3))


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_checkpoints_are_no_pickles(tmp_path: Path, zero_stage: int) -> None:
    trainer, made = Trainer(zero_stage=zero_stage), tmp_path / "made"
    start_rank(Rank(), trainer)
    before = small_model(trainer)
    before.step([[1]], lambda rows: (before(torch.ones(2, 4)).sum(), {}))
    before.begin_checkpoint(tmp_path / "good", in_background=False).finish()
    names = {file.name for file in (tmp_path / "good").iterdir()}
    assert names == {"steps.json", "rank-00000-00000.safetensors"}
    torch.save({"weight": Malice(made)}, tmp_path / "good" / "rank-00000-00000.safetensors")
    with pytest.raises(ModelError, match="good: is not a whole checkpoint"):
        small_model(trainer).load_checkpoint(tmp_path / "good")
    assert not made.exists()


def test_malice_works() -> None:
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(Malice(Path("/nowhere/at/all"))))
