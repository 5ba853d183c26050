"""A model directory comes from anywhere: whatever is in it, checks end in one line that names the file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from rlaif.config.schema import Config
from rlaif.engines import model_files
from rlaif.engines.models import check_model_dir, model_version, read_model
from rlaif.errors import ModelError
from rlaif.preflight import Needs, check_models
from rlaif.sizes.architecture import read_architecture
from tests.tiny_models import saved, tiny_lm

DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return saved(tiny_lm(0, tied=True), tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def model(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refusal(model: Path) -> str:
    """The one line with which a model that generates is refused."""
    config = Config.model_validate({"generator": {"model": str(model), "max_length": 256}})
    with pytest.raises(ModelError) as refused:
        check_models(config, Needs(models=("generator.model",)), {})
        read_architecture(str(model), {})
    lines = str(refused.value).splitlines()
    assert len(lines) == 1 and len(lines[0]) < 1000 and str(model) in lines[0]
    return lines[0]


def set_field(file: Path, name: str, value: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "[1]", "null", "3", DEEP, '{"a":' + DEEP, b"\xff\xfe{", '{"vocab_size":' + "9" * 5000 + "}"],
)
def test_a_file_that_is_no_object_is_named(model, name, content):
    (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refusal(model)
    assert (name in line) or (name.startswith("tokenizer") and "its tokenizer" in line)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("architectures", value) for value in ("LlamaForCausalLM", 5, [5], {"a": 1})),
        *(("max_position_embeddings", value) for value in ("x", [1], float("nan"), 0)),
        *(("vocab_size", value) for value in (None, "259", -5, 10**30)),
        *(("hidden_size", value) for value in (None, "64", 64.5, float("nan"), 0, -64, 10**18, 10**30)),
        *(("num_hidden_layers", value) for value in ("many", 0, -1, 3000, 10**9)),
        *(("num_attention_heads", value) for value in (0, -2, None)),
        *(("num_key_value_heads", value) for value in (0, "x")),
        *(("model_type", value) for value in (None, ["llama"], "nosuch", "\x1b]0;x\x07")),
        *(("pad_token_id", value) for value in ("x", 10**9)),
        *(("rope_scaling", value) for value in ("x", {"type": "yarn", "factor": "x"})),
        *(
            ("text_config", 3),
            ("id2label", 3),
            ("dtype", "nosuch"),
            ("hidden_act", "nosuch"),
            ("intermediate_size", None),
        ),
    ],
)
def test_a_field_that_no_model_has_is_named(model, field, value):
    set_field(model / "config.json", field, value)
    assert "config.json" in refusal(model) or "architecture" in refusal(model)


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation"])
def test_a_choice_of_kernels_changes_no_size(model, field):
    before = read_architecture(str(model), {})
    set_field(model / "config.json", field, "flash_attention_2")
    assert read_architecture(str(model), {}) == before


@pytest.mark.parametrize("ends", ["x", [[1]], {}])
def test_ends_that_are_no_ids(model, ends):
    set_field(model / "generation_config.json", "eos_token_id", ends)
    assert "generation_config.json: eos_token_id" in refusal(model)


@pytest.mark.parametrize(
    "settings",
    [{"eos_token": 5}, {"eos_token": {"a": 1}}, {"chat_template": ["x"]}, {"chat_template": [{"name": "x"}]}],
)
def test_settings_of_a_tokenizer_that_mean_nothing(model, settings):
    for name, value in settings.items():
        set_field(model / "tokenizer_config.json", name, value)
    assert "its tokenizer" in refusal(model)


def test_code_that_comes_with_a_tokenizer_is_not_advised(model):
    content = {"tokenizer_class": "Its", "auto_map": {"AutoTokenizer": ["its.T", None]}}
    (model / "tokenizer_config.json").write_text(json.dumps(content))
    assert "needs code of its own, which is never run" in refusal(model)


def weights(header: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x01\x02", bytes(range(1, 251)), weights(b"{}", 2**40), weights(b"{}", 2**62), weights(b"{}", 2**32)),
        *(weights(b"[]"), weights(b'{"a":{}}'), weights(b'{"a":5}'), weights(DEEP.encode()), weights(b'{"\xff":{}}')),
        weights(b'{"a":{"shape":[' + b"9" * 5000 + b"]}}"),
        weights(b'{"a":{"shape":[4],"data_offsets":[0,16]}}') + b"\0" * 15,
    ],
)
def test_damaged_weights_are_named(model, content):
    (model / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in refusal(model)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        read_model(model, field="x", max_length=64, pooling=False)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_not_opened(model, make):
    make(model / "x.json")
    with pytest.raises(ModelError, match=r"x\.json is not a file"):
        model_version(model)
    make(model / "x.safetensors")
    with pytest.raises(ModelError, match=r"x\.safetensors is not a file"):
        check_model_dir(model, field="generator.model")


def test_no_file_is_read_beyond_its_limit(model, monkeypatch):
    monkeypatch.setattr(model_files, "MAX_JSON_BYTES", 10)
    with pytest.raises(ModelError, match=r"generator\.model=.*: config.json has more than 10 bytes"):
        check_model_dir(model, field="generator.model")


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "x" * 300, "/" + "x" * 300, "\0x", "/dev/null"])
def test_names_that_no_file_has(name):
    with pytest.raises(ModelError):
        check_model_dir(name, field="generator.model")
    with pytest.raises(ModelError, match=r"^some/name: .* is not a file"):
        read_architecture("some/name", {"some/name": name})
