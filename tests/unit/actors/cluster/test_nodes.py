"""What a node says that it lacks, asked on this machine; ``tests/two_hosts`` asks real ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.cluster.nodes import ROLE_OF_MODEL, NodeNeeds, card_mistakes, check_every_node, node_mistakes
from actors.cluster.placement import phases_of, plan
from rlaif.config.files import load_config
from rlaif.config.keys import MODEL_KEYS
from rlaif.config.schema import Config
from rlaif.engines.models import model_version
from rlaif.errors import UserError

H100 = "NVIDIA H100 80GB HBM3, 580.95.05, 9.0"


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """Let ``nvidia-smi`` be a program that answers so."""

    def answer(*lines: str, code: int = 0) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + f"exit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return answer


def needs(tmp_path: Path, **changes) -> NodeNeeds:
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "witness.unfinished").write_text("witness.unfinished")
    fields = {
        "models": {},
        "versions": {},
        "run_dir": str(tmp_path / "run"),
        "witness": "witness.unfinished",
        "cards": False,
        "bfloat16": False,
    }
    return NodeNeeds(**{**fields, **changes})


def test_a_node_that_has_everything_says_nothing_and_leaves_nothing(tmp_path, cards):
    cards(H100)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    has = {"models": {"generator.model=x": str(model)}, "versions": {str(model): model_version(model)}}
    assert node_mistakes(needs(tmp_path, **has, cards=True, bfloat16=True)) == []
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["witness.unfinished"]


def test_models_that_are_not_there_or_are_others_are_named(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    models = {"generator.model=org/a": str(model), "labeller.model=org/b": str(tmp_path / "gone")}
    versions = {str(model): "model@00000000", str(tmp_path / "gone"): "gone@00000000"}
    other, gone = node_mistakes(needs(tmp_path, models=models, versions=versions))
    assert other.startswith(f"generator.model=org/a: {model} holds another model than on the driver's node")
    assert gone.startswith(f"labeller.model=org/b: no such directory: {tmp_path / 'gone'}") and "HF_HOME" in gone


def test_a_snapshot_whose_files_are_elsewhere_is_named(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").symlink_to(tmp_path / "blobs" / "gone")
    models, versions = {"labeller.model=org/b": str(model)}, {str(model): "model@00000000"}
    assert (
        "config.json is not a file; if it is a link, what it names is missing"
        in node_mistakes(needs(tmp_path, models=models, versions=versions))[0]
    )


def test_another_run_directory_of_the_same_name_is_none(tmp_path):
    (mistake,) = node_mistakes(needs(tmp_path, witness="another.unfinished"))
    assert "is not there, or is not the one that the driver writes" in mistake


@pytest.mark.parametrize(
    ("line", "bfloat16", "told"),
    [
        (H100, True, None),
        ("Tesla V100-SXM2-32GB, 580.95.05, 7.0", False, None),
        ("Tesla V100-SXM2-32GB, 580.95.05, 7.0", True, "V100.* does not compute in bfloat16; use cards of 8.0 or more"),
        ("NVIDIA H100 80GB HBM3, 535.183.01, 9.0", True, r"driver 535\.183\.01 is too old .* install 580\.65\.06 or"),
        ("NVIDIA A100, 580.65.05, 8.0", True, "is too old"),
        ("NVIDIA A100, 580.65.06, 8.0", True, None),
    ],
)
def test_old_drivers_and_cards_are_named(cards, line, bfloat16, told):
    cards(line, line)
    mistakes = card_mistakes(bfloat16)
    if told is None:
        assert mistakes == []
    else:
        with pytest.raises(UserError, match=told):
            raise UserError("\n".join(mistakes))
        assert len(mistakes) == 1, "once for all equal cards"


def test_a_driver_that_does_not_answer_is_named(cards):
    cards("Failed to initialize NVML: Driver/library version mismatch", code=18)
    assert card_mistakes(False)[0].startswith("nvidia-smi fails: Failed to initialize NVML")


def test_a_machine_of_its_own_is_asked_for_its_cards_only(cards, tmp_path):
    cards("NVIDIA H100 80GB HBM3, 535.183.01, 9.0")
    config = load_config(Path("configs/one_gpu.yaml"))
    claims = plan(config, phases_of(config)).claims
    with pytest.raises(UserError, match="driver 535"):
        asyncio.run(check_every_node(config, claims, {}, tmp_path, []))
    asyncio.run(check_every_node(Config(), plan(Config(), phases_of(Config())).claims, {}, tmp_path, []))


def test_every_model_has_a_role_that_loads_it():
    assert set(ROLE_OF_MODEL) == set(MODEL_KEYS)
