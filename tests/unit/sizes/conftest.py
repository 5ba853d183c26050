"""A cache of the hub with the configurations of public models, and nothing else of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.public_models import write_hub_cache


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hub")
    write_hub_cache(directory)
    return directory


@pytest.fixture
def public_models(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub itself cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are of other machines, wherever the tests run."""
    monkeypatch.setattr("rlaif.sizes.machine.measured_card", lambda: None)
