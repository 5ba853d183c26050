"""The table of stages: what a configuration has, and which roles live at the same time."""

import subprocess
import sys

from actors.cluster.placement import phases_of
from rlaif.config.schema import Config
from rlaif.stages.pipeline import STAGES, story

STORY = ["read", "revise", "supervise", "label", "fit_preference_model", "reinforce", "evaluate"]


def test_the_stages_in_their_order():
    assert story(Config()) == list(STAGES) == STORY
    direct = Config.model_validate({"reinforcement": {"reward": "direct"}})
    assert story(direct) == [name for name in STORY if name != "fit_preference_model"]


def test_the_roles_of_each_phase():
    assert dict(phases_of(Config())) == {
        "revise": ("generator",),
        "supervise": ("policy_trainer",),
        "compare": ("generator",),
        "label": ("labeller",),
        "fit_preference_model": ("preference_trainer",),
        "reinforce": ("generator", "scorer", "policy_trainer"),
        "evaluate": ("generator",),
    }


def test_two_preference_models_are_asked_by_scorers():
    config = Config.model_validate({"preference_model": {"test_split": True}})
    assert phases_of(config)["evaluate"] == ("generator",)
    assert phases_of(config)["score"] == ("scorer",)


def test_a_refresh_needs_the_labeller_and_the_preference_trainer_while_reinforcing():
    config = Config.model_validate({"preference_model": {"refresh": {"every": 10}}})
    wanted = ("generator", "scorer", "policy_trainer", "labeller", "preference_trainer")
    assert phases_of(config)["reinforce"] == wanted


def test_a_direct_reward_is_given_by_the_labeller():
    phases = phases_of(Config.model_validate({"reinforcement": {"reward": "direct"}}))
    assert phases["reinforce"] == ("generator", "labeller", "policy_trainer")
    assert "fit_preference_model" not in phases


def test_a_plan_loads_no_library_of_models():
    code = "import sys, actors.cluster.placement, rlaif.stages.pipeline; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "vllm", "ray", "transformers", "deepspeed", "datasets"} & set(done.stdout.split())
