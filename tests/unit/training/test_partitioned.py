"""Models loaded and saved in parts by two gloo ranks (ZeRO-3): no rank holds a whole one, and all weights are right."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from benchmarks.sharded_load import growth
from rlaif.config.trainer import Trainer
from rlaif.errors import ModelError
from rlaif.jobs import Rank
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.training.deepspeed_config import partition_config
from rlaif.training.gathering import gathered_state
from rlaif.training.models import load_policy, load_scorer, new_scorer, verify
from rlaif.training.partitioned import stored_tensors
from rlaif.training.saving import save_model
from tests.tiny_models import saved, tiny_lm, tiny_tokenizer
from tests.unit.training.conftest import in_batches, pair_rows, preference_job
from tests.unit.training.two_ranks import on_two_ranks

TRAINER = Trainer(zero_stage=3, micro_batch_tokens=64)


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in gathered_state(module, bucket_bytes=10_000)}


def loaded(rank: Rank, directory: Path, bases: dict[str, str], scorer: str) -> dict:
    from rlaif.training.deepspeed import start_rank

    start_rank(rank, TRAINER)
    found = {}
    for dtype in ("float32", "bfloat16"):
        trainer = Trainer(zero_stage=3, dtype=dtype)
        partition = partition_config(trainer)
        for name, base in bases.items():
            policy = load_policy(base, dtype, partition)
            assert sum(parameter.numel() for parameter in policy.parameters()) == 0
            found[name, dtype] = state(policy.language_model) | dict(policy.language_model.named_buffers())
        tokenizer = load_tokenizer(bases["tied"])
        tokenizer.unk_token = None
        tokenizer.pad_token = tokenizer.eos_token
        found["new", dtype] = state(new_scorer(bases["tied"], dtype, tokenizer, 3, partition).classifier)
        found["scorer", dtype] = state(load_scorer(scorer, dtype, partition).classifier)
    policy = load_policy(bases["tied"], "float32", partition_config(TRAINER))
    save_model(policy.language_model, tokenizer, str(directory / "parts"), rank, shard_bytes=100_000)
    run_without_pretraining(rank, directory, bases["tied"])
    head = policy.language_model.get_output_embeddings()
    policy.language_model.get_output_embeddings = lambda: lambda hidden: 2 * head(hidden)
    with pytest.raises(ModelError, match="plain output head"):
        verify(policy, "changed")
    return found


def run_without_pretraining(rank: Rank, directory: Path, base: str) -> None:
    from rlaif.training.preference import run_preference

    batches = [batch[rank.index :: 2] for batch in in_batches(pair_rows(8))]
    job = preference_job(base, directory / "pm", TRAINER)
    run_preference(job, rank, None, batches, None, lambda _: None)


@pytest.fixture(scope="module")
def bases(base, tmp_path_factory) -> dict[str, str]:
    return {"tied": base, "untied": saved(tiny_lm(2, tied=False), tmp_path_factory.mktemp("untied"))}


@pytest.fixture(scope="module")
def two_ranks(bases, scorer, tmp_path_factory) -> tuple[Path, list[dict]]:
    directory = tmp_path_factory.mktemp("two_ranks")
    (directory / "parts").mkdir()
    (directory / "parts" / "model.safetensors").write_bytes(b"of an earlier model")
    return directory, on_two_ranks(loaded, directory, bases, scorer)


def test_every_rank_gathers_what_the_files_hold(bases, scorer, two_ranks):
    for rank in two_ranks[1]:
        for (name, dtype), tensors in rank.items():
            if name == "new":
                continue
            auto = AutoModelForSequenceClassification if name == "scorer" else AutoModelForCausalLM
            model = auto.from_pretrained(bases.get(name, scorer), dtype=getattr(torch, dtype))
            stock = model.state_dict() | ({} if name == "scorer" else dict(model.named_buffers()))
            assert set(tensors) == set(stock)
            for key, tensor in tensors.items():
                assert tensor.dtype == stock[key].dtype, (name, dtype, key)
                assert torch.equal(tensor, stock[key]), (name, dtype, key)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_new_scorer_is_the_one_that_a_single_rank_makes(bases, two_ranks, dtype):
    tokenizer = AutoTokenizer.from_pretrained(bases["tied"])
    tokenizer.unk_token = None
    tokenizer.pad_token = tokenizer.eos_token
    expected = new_scorer(bases["tied"], dtype, tokenizer, 3).classifier.state_dict()
    for rank in two_ranks[1]:
        found = rank["new", dtype]
        assert set(found) == set(expected)
        for key, tensor in found.items():
            known = len(tensor) - 1 if "embed" in key else len(tensor)  # the row of the padding token is free
            assert torch.equal(tensor[:known], expected[key][:known]), key
            assert tensor.shape == expected[key].shape


def test_a_partitioned_model_is_saved_in_shards_that_stock_loaders_read(bases, two_ranks):
    path = two_ranks[0] / "parts"
    files = sorted(file.name for file in path.glob("*.safetensors"))
    assert len(files) > 2 and "model.safetensors" not in files
    index = json.loads((path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    stored = {name for file in files for name in load_file(path / file)}
    assert stored == set(index["weight_map"]) == set(stored_tensors(str(path)))
    ours, stock = (json.loads((Path(each) / "generation_config.json").read_text()) for each in (path, bases["tied"]))
    assert ours == stock
    ours, stock = (AutoModelForCausalLM.from_pretrained(each).state_dict() for each in (path, bases["tied"]))
    assert set(ours) == set(stock) and all(torch.equal(ours[name], stock[name]) for name in stock)


def test_a_scorer_that_was_not_fitted_is_saved_whole(two_ranks):
    for name in ("pm", "pm-unfitted"):
        weights = load_file(two_ranks[0] / name / "model.safetensors")
        assert all(tensor.numel() for tensor in weights.values())
        assert weights["score.weight"].any()


def test_missing_and_misshapen_weights_are_named(base, tmp_path):
    stock = tiny_lm(0, tied=True)
    found = on_two_ranks(refusals, tmp_path, saved(stock, tmp_path / "model"))
    assert found[0] == found[1]
    assert "has no weights for model.norm.weight" in found[0][0]
    assert "model.norm.weight has the shape [3], not [64]" in found[0][1]
    assert "not a preference model" in found[0][2]


def refusals(rank: Rank, directory: Path, path: str) -> list[str]:
    from safetensors.torch import save_file

    from rlaif.training.collectives import wait_for_all
    from rlaif.training.deepspeed import start_rank

    start_rank(rank, TRAINER)
    partition = partition_config(TRAINER)
    file = Path(path) / "model.safetensors"
    tensors = load_file(file)
    messages = []
    for norm in (None, torch.ones(3)):
        del tensors["model.norm.weight"]
        if norm is not None:
            tensors["model.norm.weight"] = norm
        wait_for_all(rank)
        if rank.index == 0:
            save_file(tensors, file, metadata={"format": "pt"})
        wait_for_all(rank)
        tensors["model.norm.weight"] = torch.ones(3)
        with pytest.raises(ModelError) as caught:
            load_policy(path, "float32", partition)
        messages.append(str(caught.value))
    with pytest.raises(ModelError) as caught:
        load_scorer(path, "float32", partition)
    return [*messages, str(caught.value)]


#: 0.4 GB in float32, most of it in layers.
LARGE = LlamaConfig(
    hidden_size=1024,
    intermediate_size=2816,
    num_hidden_layers=7,
    num_attention_heads=8,
    num_key_value_heads=8,
    vocab_size=2048,
    tie_word_embeddings=True,
)


def test_no_rank_holds_a_whole_model(tmp_path):
    path = tmp_path / "large"
    AutoModelForCausalLM.from_config(LARGE).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert size > 360e6
    for sharded in (True, False):
        grown = growth(str(path), sharded=sharded)
        assert len(grown) == 2
        if sharded:
            assert max(grown) < 0.7 * size
        else:
            assert min(grown) > 0.9 * size
