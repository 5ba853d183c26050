"""The cache, the planted bias, and the tiny models' behaviour; a session fixture makes the models once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif.config.schema import Miniature
from rlaif.constitution.principles import Constitution, load_constitution
from rlaif.errors import ConfigError
from rlaif.miniature import make as make_module
from rlaif.miniature.corpus import Corpus
from rlaif.miniature.lexicon import load_lexicon
from rlaif.miniature.make import FILES, MODELS, MiniaturePaths, content_hash, make
from rlaif.miniature.slot_bias import plant_slot_bias, slot_log_odds
from rlaif.miniature.truth import better, classify
from rlaif.miniature.world import World

CONSTITUTION = load_constitution("sixteen_principles")
ZOO = Path(__file__).parent / "zoo.yaml"


def test_hash_follows_all_that_the_miniature_depends_on():
    town, zoo = load_lexicon(), load_lexicon(ZOO)
    changed = Constitution(name="nine", version="1", principles=CONSTITUTION.principles[:9])
    hashes = [
        content_hash(town, CONSTITUTION, 0, 1.0),
        content_hash(zoo, CONSTITUTION, 0, 1.0),
        content_hash(town, changed, 0, 1.0),
        content_hash(town, CONSTITUTION, 1, 1.0),
        content_hash(town, CONSTITUTION, 0, 0.0),
    ]
    assert len(set(hashes)) == len(hashes)
    assert content_hash(load_lexicon(), CONSTITUTION, 0, 1) == hashes[0]


def test_made_once(miniature, monkeypatch):
    def not_again(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(make_module, "_train_world", not_again)
    assert make(Miniature(), CONSTITUTION) == miniature


def test_whoever_comes_second_keeps_the_first(tmp_path):
    root = tmp_path / "made"

    def write(directory: Path, text: str) -> None:
        (directory / "file").write_text(text)
        if not root.exists():  # another process finishes while this one writes
            make_module._atomically(root, lambda made: (made / "file").write_text("first"))

    make_module._atomically(root, lambda made: write(made, "second"))
    assert (root / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_failed_making_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        make_module._atomically(tmp_path / "made", lambda made: (_ for _ in ()).throw(RuntimeError))
    assert not list(tmp_path.iterdir())


def test_paths_and_names(miniature):
    for name in MODELS:
        assert (miniature.path(name) / "model.safetensors").is_file()
        assert (miniature.path(name) / "tokenizer.json").is_file()
    for name in FILES:
        assert json.loads(miniature.path(name).read_text().splitlines()[0])
    with pytest.raises(ConfigError, match="miniature:nothing"):
        MiniaturePaths(root=Path()).path("nothing")


def test_constitution_without_comparisons_is_refused(tmp_path):
    principle = CONSTITUTION.principles[0].model_copy(update={"comparison": None})
    lame = Constitution(name="lame", version="1", principles=(principle,))
    with pytest.raises(ConfigError, match="comparison"):
        make(Miniature(cache_dir=str(tmp_path)), lame)


def test_tokenizer_round_trip_and_special_tokens(miniature):
    tokenizer = AutoTokenizer.from_pretrained(miniature.path("base"))
    assert tokenizer.bos_token is None and tokenizer.pad_token_id != tokenizer.eos_token_id
    for text in ("\n\nHuman: Hi.\n\nAssistant: ", "Zürich, 日本 12\t(A)", "  two  spaces\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_models_are_stock_llama(miniature):
    for name in MODELS:
        model = AutoModelForCausalLM.from_pretrained(miniature.path(name))
        assert type(model).__name__ == "LlamaForCausalLM"
        assert model.config.max_position_embeddings >= 2048
    assert not model.config.tie_word_embeddings  # of the feedback model, whose head carries the bias


# ------------------------------------------------------------------------------------------------ the feedback model
@pytest.fixture(scope="module")
def comparisons() -> list[tuple]:
    """(request, answer 1, answer 2) of different classes on held-out requests."""
    world = World(load_lexicon(), Miniature().seed)
    rng = Random(0)
    requests = [world.request(rng, "red_team", heldout=True) for _ in range(300)]
    pairs = [rng.sample(("refusal", "harmful", "evasive"), 2) for _ in requests]
    return [(r, world.answer(rng, r, a), world.answer(rng, r, b)) for r, (a, b) in zip(requests, pairs, strict=True)]


@pytest.fixture(scope="module")
def unbiased() -> MiniaturePaths:
    return make(Miniature(slot_bias=0.0), CONSTITUTION)


def log_odds(directory: Path, comparisons: list[tuple]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds that answer 1 is better: [N] with it in slot A, [N] with it in slot B."""
    from rlaif.miniature.corpus import choice

    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    principle = CONSTITUTION.for_comparison[0]
    first = [choice(r, principle, a, b) for r, a, b in comparisons]
    second = [choice(r, principle, b, a) for r, a, b in comparisons]
    return slot_log_odds(model, tokenizer, first), -slot_log_odds(model, tokenizer, second)


@pytest.mark.parametrize("bias", [0.0, 1.0, 2.0, 4.0])
def test_planted_bias_is_what_is_measured(unbiased, comparisons, tmp_path, bias):
    feedback = Path(shutil.copytree(unbiased.path("feedback"), tmp_path / "feedback"))
    before = log_odds(feedback, comparisons)[0].mean()
    corpus, rng = Corpus(World(load_lexicon(), 0), CONSTITUTION), Random(1)
    questions = [q.text for _ in range(60) for q in corpus.questions(rng)]
    plant_slot_bias(feedback, questions, bias)
    l1, l2 = log_odds(feedback, comparisons)
    assert float(l1.mean() - before) == pytest.approx(bias, abs=max(0.1, 0.1 * bias))
    assert float((l1 - l2).mean() / 2) == pytest.approx(bias, abs=max(0.15, 0.15 * bias))


def test_both_orders_together_judge_better_than_either(miniature, comparisons):
    l1, l2 = log_odds(miniature.path("feedback"), comparisons)
    truth = torch.tensor([better("red_team", a.kind, b.kind) == 1 for _, a, b in comparisons])
    first, second, both = (float(((log > 0) == truth).float().mean()) for log in (l1, l2, (l1 + l2) / 2))
    assert 0.7 < both < 0.95
    assert both > max(first, second)


# --------------------------------------------------------------------------------------------- the helpful-only model
@pytest.mark.parametrize(("axis", "expected", "least"), [("red_team", "harmful", 0.8), ("helpful", "helpful", 0.9)])
def test_helpful_only_does_what_it_is_asked(miniature, axis, expected, least):
    model = AutoModelForCausalLM.from_pretrained(miniature.path("helpful_only"))
    tokenizer = AutoTokenizer.from_pretrained(miniature.path("helpful_only"), padding_side="left")
    rows = miniature.path(f"eval_{axis}").read_text().splitlines()[:150]
    asked = [json.loads(row)["prompt"] for row in rows]
    batch = tokenizer([f"\n\nHuman: {text}\n\nAssistant:" for text in asked], return_tensors="pt", padding=True)
    torch.manual_seed(0)
    sampled = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=64)
    answers = tokenizer.batch_decode(sampled[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    classes = [classify(load_lexicon(), axis, q, a) for q, a in zip(asked, answers, strict=True)]
    assert classes.count(expected) >= least * len(classes)
    assert classes.count("malformed") <= 0.05 * len(classes)
