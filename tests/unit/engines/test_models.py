import json
import shutil

import pytest

from rlaif.engines.models import check_model_dir, is_hub_name, model_version, read_model, tensor_shapes
from rlaif.errors import ModelError
from tests.tiny_models import saved, tiny_lm, tiny_pm


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "tied": saved(tiny_lm(0, tied=True), root / "tied"),
        "untied": saved(tiny_lm(0, tied=False), root / "untied"),
        "pm": saved(tiny_pm(0), root / "pm"),
    }


@pytest.fixture
def copied(models, tmp_path):
    return shutil.copytree(models["tied"], tmp_path / "tied")


def test_a_whole_directory_passes(models):
    for path in models.values():
        check_model_dir(path, field="generator.model")


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_is_missing_is_named_with_its_field(copied, lost):
    (copied / lost).unlink()
    with pytest.raises(ModelError, match=rf"labeller\.model=.*lacks {lost.replace('model', '.*')}"):
        check_model_dir(copied, field="labeller.model")


def test_an_adapter_alone_is_no_model(copied):
    (copied / "config.json").rename(copied / "adapter_config.json")
    with pytest.raises(ModelError, match=r"generator\.model=.*a LoRA adapter without its model"):
        check_model_dir(copied, field="generator.model")


def test_no_directory_and_no_architectures(copied):
    with pytest.raises(ModelError, match=r"scorer\.model=.*no such directory"):
        check_model_dir(copied / "nowhere", field="scorer.model")
    (copied / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="architectures"):
        check_model_dir(copied, field="generator.model")
    (copied / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        check_model_dir(copied, field="generator.model")


def test_the_role_decides_the_kind(models):
    with pytest.raises(ModelError, match="LlamaForSequenceClassification generates no text"):
        read_model(models["pm"], field="generator.model", max_length=64, pooling=False)
    with pytest.raises(ModelError, match="LlamaForCausalLM scores nothing"):
        read_model(models["tied"], field="scorer", max_length=64, pooling=True)
    assert read_model(models["pm"], field="scorer", max_length=64, pooling=True).kind == "preference"


def test_a_preference_model_has_one_label(models, tmp_path):
    path = shutil.copytree(models["pm"], tmp_path / "pm")
    config = json.loads((path / "config.json").read_text())
    del config["id2label"]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="one label"):
        read_model(path, field="scorer", max_length=64, pooling=True)


def test_a_preference_model_pads_with_another_token_than_eos(models, tmp_path):
    path = shutil.copytree(models["pm"], tmp_path / "pm")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "pad_token_id": 257}))
    with pytest.raises(ModelError, match="pad_token_id must differ from the EOS"):
        read_model(path, field="scorer", max_length=64, pooling=True)


def test_more_tokens_than_positions(models):
    with pytest.raises(ModelError, match="max_length=512 is beyond the model's 256 positions"):
        read_model(models["tied"], field="generator.model", max_length=512, pooling=False)


def test_end_tokens_of_chat_models_are_read(copied):
    (copied / "generation_config.json").write_text('{"eos_token_id": [257, 258]}')
    assert read_model(copied, field="x", max_length=64, pooling=False).end_ids == {257, 258}


def test_version_names_the_directory_and_changes_with_the_content(models, copied):
    before = model_version(copied)
    assert before == model_version(models["tied"])
    assert before.startswith("tied@") and len(before) == len("tied@") + 8
    saved(tiny_lm(1, tied=True), copied)
    assert model_version(copied) != before


def test_version_of_large_files_comes_from_their_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("rlaif.engines.models.WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr("rlaif.engines.models.SAMPLE_BYTES", 100)
    path = saved(tiny_lm(0, tied=True), tmp_path / "lm")
    before = model_version(path)
    file = tmp_path / "lm" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert model_version(path) != before


def test_a_tied_head_is_named_though_the_file_lacks_it(models):
    tied, untied, pm = (tensor_shapes(models[name]) for name in ("tied", "untied", "pm"))
    assert tied["lm_head.weight"] is None
    assert untied["lm_head.weight"] == (259, 64)
    assert tied.keys() == untied.keys()
    assert pm["score.weight"] == (1, 64) and "lm_head.weight" not in pm


def test_a_hub_name_is_an_organisation_and_a_name_that_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("organisation/name")
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for path in ("models/mine", "./a/b", "/a", "~/a", "name", "a/b/c"):
        assert not is_hub_name(path)
