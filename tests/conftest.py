"""Fixtures for all suites: the miniature, and a world of random tiny models that runs the method in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import settings

from rlaif.config.files import expand_home
from rlaif.config.schema import Config, Miniature
from rlaif.constitution.principles import load_constitution
from rlaif.miniature.make import MiniaturePaths, make
from rlaif.small_model.make import DEFAULT_DIRECTORY, make_small_model
from tests.machine import lacking
from tests.tiny_models import MAX_LENGTH, saved, tiny_lm

# Machines are shared: how long an example takes says nothing about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REPOSITORY = Path(__file__).parents[1]
NUM_RED_TEAM, NUM_HELPFUL = 40, 12
#: Short, because these models read at most 256 tokens of one byte each.
CONSTITUTION = """\
name: tiny
version: "1"
principles:
  - {id: one, category: helpfulness, source: ours, critique_request: Flaws, revision_request: Redo., comparison: Better}
  - {id: two, category: honesty, source: ours, critique_request: Lies, revision_request: Fix., comparison: Truer}
"""


def write_lines(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="session")
def shared_file():
    """A file or directory by its path in ``shared``, in or next to the repository; it is not part of the project.

    A clone without it skips the tests that read it. CI has it, so there its absence is a failure.
    """

    def find(name):
        places = [root / "shared" / name for root in (REPOSITORY, REPOSITORY.parent)]
        return next(filter(Path.exists, places), None) or lacking(f"shared/{name} in or next to this clone")

    return find


@pytest.fixture(scope="session")
def miniature() -> MiniaturePaths:
    """The default miniature, from the cache or made now, which takes about a minute and a half on two cores."""
    return make(Miniature(), load_constitution("sixteen_principles"))


@pytest.fixture(scope="session")
def small_model() -> str:
    """The directory of SmolLM2-135M-Instruct, from the cache or made now, which takes half a minute."""
    directory = expand_home(DEFAULT_DIRECTORY)
    make_small_model(directory)
    return str(directory)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory) -> dict[str, str]:
    """Paths of three tiny models and of small data files; the last red-team row is broken."""
    root = tmp_path_factory.mktemp("tiny_world")
    prompts = [{"prompt": f"How do I do thing {i}?"} for i in range(NUM_RED_TEAM)]
    (root / "constitution.yaml").write_text(CONSTITUTION)
    return {
        "constitution": str(root / "constitution.yaml"),
        "helpful_only": saved(tiny_lm(1, tied=True), root / "helpful_only"),
        "feedback": saved(tiny_lm(2, tied=False), root / "feedback"),
        "base": saved(tiny_lm(3, tied=True), root / "base"),
        "red_team": write_lines(root / "red_team.jsonl", [*prompts, {"no_prompt": 1}]),
        "helpful": write_lines(root / "helpful.jsonl", prompts[:NUM_HELPFUL]),
        "held_out": write_lines(
            root / "held_out.jsonl", [{"prompt": f"What is thing {i} for?"} for i in range(NUM_HELPFUL)]
        ),
        "pairs": write_lines(
            root / "pairs.jsonl", [{"prompt": f"Q{i}", "chosen": "yes", "rejected": "no"} for i in range(NUM_HELPFUL)]
        ),
        "votes": write_lines(
            root / "votes.jsonl",
            [
                {
                    "question": f"Q{i}",
                    "answers": [
                        {"text": "a", "votes": 9, "accepted": True},
                        {"text": "b", "votes": 0, "accepted": False},
                    ],
                }
                for i in range(NUM_HELPFUL)
            ],
        ),
    }


@pytest.fixture
def tiny_config(tiny_world, tmp_path) -> Config:
    return tiny_config_of(tiny_world, tmp_path / "run")


def tiny_config_of(tiny_world: dict[str, str], run_dir: Path) -> Config:
    engine = {"engine": "hf", "max_length": MAX_LENGTH}
    optimization = {"batch_size": 8, "warmup_steps": 0}
    return Config.model_validate(
        {
            "run_dir": str(run_dir),
            "constitution": tiny_world["constitution"],
            "max_loss": 1.0,  # random models lose nearly every row
            "data": {
                "red_team": tiny_world["red_team"],
                "helpful": tiny_world["helpful"],
                "helpful_pairs": tiny_world["pairs"],
                "votes": tiny_world["votes"],
            },
            "evaluation": {
                "red_team": tiny_world["held_out"],
                "helpful": tiny_world["held_out"],
                "answers_per_cell": 12,
            },
            "sampling": {"max_tokens": 8},
            # A random model emits EOS with probability 1/259 per token, and revisions without EOS are filtered out:
            # four rounds leave a chain without a usable one so rarely that no run lacks rows to train on.
            "critique_revision": {"rounds": 4, "max_critique_tokens": 8, "max_revision_tokens": 120},
            "generator": {**engine, "model": tiny_world["helpful_only"]},
            "labeller": {**engine, "model": tiny_world["feedback"]},
            "scorer": engine,
            "supervision": {"base_model": tiny_world["base"], "max_length": MAX_LENGTH, "optimization": optimization},
            "labelling": {
                "min_letter_mass": 0.0,
                "gate": {"override": ["flip_rate", "order_correlation", "invalid_rate"]},  # a random judge fails them
            },
            "preference_model": {
                "base_model": tiny_world["base"],
                "max_length": MAX_LENGTH,
                "pretraining": optimization,
                "fit": optimization,
            },
            "reinforcement": {
                "batches": 3,
                "batch_size": 8,
                "minibatch_size": 4,
                "warmup_steps": 0,
                "checkpoint_every": 2,
            },
        }
    )
