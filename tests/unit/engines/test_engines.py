"""The table of engines: complete, light, and what opening by it refuses."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from rlaif.config.schema import PoolSettings
from rlaif.engines import ENGINES, open_engine
from rlaif.errors import ModelError

REPOSITORY = Path(__file__).resolve().parents[3]


def test_every_engine_that_a_configuration_may_name_is_in_the_table():
    assert set(ENGINES) == set(get_args(PoolSettings.model_fields["engine"].annotation))
    assert ENGINES["hf"].in_process_only
    assert not ENGINES["vllm"].in_process_only and not ENGINES["scripted"].in_process_only


@pytest.mark.parametrize("module", ["rlaif.interfaces", "rlaif.engines"])
def test_the_seams_and_the_table_are_read_without_heavy_libraries(module):
    heavy = ("torch", "vllm", "ray", "transformers", "tokenizers")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "scripted"])
def test_only_the_scripted_engine_does_without_a_model(name):
    with pytest.raises(ModelError, match=rf"labeller\.model: engine {name} needs a model"):
        open_engine("labeller", None, PoolSettings(engine=name))
