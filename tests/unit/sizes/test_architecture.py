"""Shapes of public models, read from their configurations alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig

from rlaif.errors import ModelError
from rlaif.miniature.make import MODELS
from rlaif.sizes.architecture import UnknownSizeError, of_config, read_architecture
from tests.public_models import LLAMA_8B, PUBLIC_MODELS
from tests.tiny_models import saved, tiny_lm, tiny_pm


@pytest.mark.usefixtures("public_models")
@pytest.mark.parametrize("name", PUBLIC_MODELS)
def test_public_models_have_the_parameters_that_they_are_known_for(name: str) -> None:
    config, parameters = PUBLIC_MODELS[name]
    architecture = read_architecture(name, {})
    assert architecture.parameters == parameters
    assert (architecture.layers, architecture.hidden) == (config["num_hidden_layers"], config["hidden_size"])


def test_parameters_of_real_models_are_counted_as_they_are(tmp_path: Path) -> None:
    for tied in (True, False):
        model = tiny_lm(1, tied=tied)
        architecture = read_architecture(saved(model, tmp_path / f"lm_{tied}"), {})
        assert architecture.parameters == sum(parameter.numel() for parameter in model.parameters())
    scorer = tiny_pm(1)
    counted = of_config(LlamaConfig(**{**scorer.config.to_dict(), "architectures": None}))
    assert counted.scorer_parameters == sum(parameter.numel() for parameter in scorer.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_miniature_has_a_size_before_it_is_made(name: str) -> None:
    assert 100_000 < read_architecture(f"miniature:{name}", {}).parameters < 2_000_000


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for text, says in (
        ("{", "config.json is not JSON"),
        ("[]", "config.json: Input should be an object"),
        ("{}", "config.json names no model_type"),
        (json.dumps({**LLAMA_8B, "model_type": "none_such"}), "its architecture 'none_such' is unknown"),
        (json.dumps({"model_type": "mamba"}), "config.json lacks"),
    ):
        file.write_text(text)
        with pytest.raises(ModelError, match=f"^{tmp_path}: {says}"):
            read_architecture(str(tmp_path), {})


@pytest.mark.usefixtures("public_models")
def test_a_name_that_nothing_shows_is_no_mistake() -> None:
    with pytest.raises(UnknownSizeError, match=r"^some/name: is not in the local cache, and HF_HUB_OFFLINE is set"):
        read_architecture("some/name", {})
