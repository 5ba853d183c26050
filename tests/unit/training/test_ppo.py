"""The policy learner in one process: its initial state, its metrics, and how it resumes."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlaif.algorithms.advantage import Normalization
from rlaif.config.trainer import Trainer
from rlaif.errors import DataError, ModelError
from rlaif.jobs import Rank
from rlaif.training import checkpoint_files
from rlaif.training.ppo import PPOLearner
from rlaif.training.ppo_batch import LearnerState, draw_probes
from rlaif.training.rollouts import micro_batch
from tests.checkpoints import write_checkpoint
from tests.tiny_models import tensors_of
from tests.unit.training.conftest import ppo_job, rollouts


def test_value_function_starts_as_the_preference_model_in_reward_units(base, scorer):
    learner = PPOLearner(ppo_job(base, scorer), Rank())
    samples = rollouts(3)
    normalize = Normalization(mean=0.3, scale=2.0)
    with torch.no_grad():
        networks = learner._networks
        found = networks.values(micro_batch(samples, [0, 2], networks.policy.device), normalize).tolist()
        model = AutoModelForSequenceClassification.from_pretrained(scorer)
        expected = []
        for sample in (samples[0], samples[2]):
            for t in range(len(sample.response_ids)):  # the value before token t is the score of the text before it
                before = torch.tensor([[*sample.prompt_ids, *sample.response_ids[:t]]])
                expected.append((model(before).logits.item() - 0.3) / 2.0)
    assert found == pytest.approx(expected, abs=1e-4)


def test_first_batch_starts_at_the_reference(base, scorer):
    samples = rollouts(16)
    learned = PPOLearner(ppo_job(base, scorer, epochs=1, minibatch_size=16), Rank()).learn(samples)
    assert learned.version == 1
    assert learned.kl == pytest.approx([0.0] * 16, abs=1e-4)
    assert learned.metrics["reinforce/policy/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert learned.metrics["reinforce/score/mean"] == pytest.approx(np.mean([s.score for s in samples]))
    truncated = np.mean([s.finish_reason == "length" for s in samples])
    assert learned.metrics["reinforce/reward/mean"] == pytest.approx(-truncated, abs=1e-5)
    assert 0 < learned.metrics["reinforce/gap/effective_sample_size"] < 1
    weights = [len(s.response_ids) for s in samples]
    assert np.average(learned.advantage_mean, weights=weights) == pytest.approx(0, abs=1e-5)


def test_samples_with_high_scores_become_likelier(base, scorer):
    samples = [replace(s, score=10.0 if i < 4 else -10.0, finish_reason="stop") for i, s in enumerate(rollouts(16))]
    learner = PPOLearner(ppo_job(base, scorer, epochs=4), Rank())
    before = [sum(row) for row in logprobs(base, samples)]
    for _ in range(3):
        learner.learn(samples)
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors_of(learner.weights()).items()}
    after = [sum(row) for row in logprobs(base, samples, state)]
    change = np.array(after) - np.array(before)
    assert change[:4].mean() > change[4:].mean() + 1


def logprobs(path, samples, state=None, temperature=0.8):
    model = AutoModelForCausalLM.from_pretrained(path)
    if state is not None:
        model.load_state_dict(state)
    rows = []
    with torch.no_grad():
        for sample in samples:
            ids = [*sample.prompt_ids, *sample.response_ids]
            all_logprobs = (model(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
            first = len(sample.prompt_ids)
            rows.append([all_logprobs[t - 1, ids[t]].item() for t in range(first, len(ids))])
    return rows


def test_weights_cover_the_model_and_their_probe_is_true(base, scorer):
    learner = PPOLearner(ppo_job(base, scorer), Rank())
    for _ in range(2):  # before any learning, and after
        weights = learner.weights()
        state = {name: torch.from_numpy(tensor) for name, tensor in tensors_of(weights).items()}
        assert set(state) == set(AutoModelForCausalLM.from_pretrained(base).state_dict())
        assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])
        model = AutoModelForCausalLM.from_pretrained(base)
        model.load_state_dict(state)
        with torch.no_grad():
            for ids, values in zip(weights.header.probe.token_ids, weights.header.probe.values, strict=True):
                stock = model(torch.tensor([ids])).logits[0].log_softmax(-1)
                expected = [stock[place - 1, ids[place]].item() for place in range(len(ids) - len(values), len(ids))]
                assert values == pytest.approx(expected, abs=1e-4)
        learner.learn(rollouts(8))
    assert weights.version == 1


def test_probes_are_the_beginnings_of_answers_from_all_over_the_batch():
    sample = replace(rollouts(1)[0], prompt_ids=tuple(range(20)), response_ids=(30, 31), logprobs=(-1.0, -0.5))
    samples = [replace(sample, id=f"p:{n}", response_ids=tuple(range(n, n + 100))) for n in range(64)]
    probes = draw_probes(samples)
    assert [probe.token_ids[16] for probe in probes] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert sum(probe.num_probed for probe in probes) == 256
    assert draw_probes([sample]) == ((tuple([*range(4, 20), 30, 31]), 2),)


def test_saved_policy_is_the_one_served(base, scorer, tmp_path):
    learner = PPOLearner(ppo_job(base, scorer), Rank())
    learner.learn(rollouts(8))
    learner.save(tmp_path)
    state = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    for name, tensor in tensors_of(learner.weights()).items():
        assert np.array_equal(state[name].numpy(), tensor), name


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_resumed_learner_goes_on_exactly(base, scorer, tmp_path, algorithm):
    kl = {"controller": "adaptive", "target": 0.001, "horizon": 10}
    job = ppo_job(
        base,
        scorer,
        algorithm=algorithm,
        group_size=2,
        kl=kl,
        reward_normalization="mean_std",
        warmup_steps=6,
        helpfulness_penalty=2.0,
        helpfulness_margin=0.0,
    )
    samples = rollouts(16, group_size=2)
    learner = PPOLearner(job, Rank())
    learner.learn(samples)
    write_checkpoint(learner, tmp_path)
    probe = learner.weights().header.probe
    resumed = PPOLearner(replace(job, checkpoint=str(tmp_path)), Rank())
    assert resumed.weights().header.probe == probe
    worse = [replace(s, score=s.score - 1) for s in samples[::-1]]
    expected, found = learner.learn(worse), resumed.learn(worse)
    assert found == expected
    assert expected.metrics["reinforce/helpfulness/weight"] == pytest.approx(1 + 2.0 * 0.2)
    assert expected.metrics["reinforce/kl/coefficient"] != job.settings.kl.coefficient
    for name, tensor in tensors_of(learner.weights()).items():
        assert np.array_equal(tensors_of(resumed.weights())[name], tensor), name


def test_batches_are_learned_while_a_checkpoint_is_written_and_are_not_in_it(base, scorer, tmp_path, monkeypatch):
    learned = threading.Event()

    def late(*arguments, **named):
        assert learned.wait(60)
        save_file(*arguments, **named)

    monkeypatch.setattr(checkpoint_files, "save_file", late)
    job = ppo_job(base, scorer)
    learner = PPOLearner(job, Rank())
    learner.learn(rollouts(16))
    before = learner.weights().header
    learner.begin_checkpoint(tmp_path)
    learner.learn(rollouts(16)[::-1])
    assert not learner.finish_checkpoint() and not (tmp_path / "progress.json").exists()
    learned.set()
    while not learner.finish_checkpoint():
        time.sleep(0.01)
    resumed = PPOLearner(replace(job, checkpoint=str(tmp_path)), Rank())
    assert (before.version, learner.weights().header.version) == (1, 2)
    assert resumed.weights().header == before


def test_checkpoints_of_earlier_releases_are_read(tmp_path):
    saved = (
        '{"version": 3, "coefficient": 0.2, "statistics": {"count": 8.0, "mean": 0.5, "squares": 2.0}, '
        '"watched": {"first_length": 4.0, "first_helpful": 1.0, "helpful": 0.5}, "probes": [[1, 2], [3]], '
        '"preference_model_version": 1}'
    )
    (tmp_path / "progress.json").write_text(saved)
    state = LearnerState.load(tmp_path)
    assert (state.version, state.statistics.mean, state.guard.helpful) == (3, 0.5, 0.5)
    assert state.probes == (((1, 2), 1), ((3,), 1))  # of which the last token was compared
    state.save(tmp_path)
    written = json.loads((tmp_path / "progress.json").read_text())
    assert written == {**json.loads(saved), "probes": [[[1, 2], 1], [[3], 1]]}
    assert LearnerState.load(tmp_path) == state


def test_a_directory_that_is_no_whole_checkpoint_is_named(base, scorer, tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        PPOLearner(replace(ppo_job(base, scorer), checkpoint=str(tmp_path)), Rank())


def test_micro_batches_do_not_change_what_is_learned(base, scorer):
    tensors = []
    for tokens in (1, 10_000):
        job = ppo_job(base, scorer)
        job = replace(job, trainer=job.trainer.model_copy(update={"micro_batch_tokens": tokens}))
        learner = PPOLearner(job, Rank())
        learner.learn(rollouts(16))
        tensors.append(tensors_of(learner.weights()))
    for name in tensors[0]:  # Adam turns rounding of near-zero gradients into full steps: compare means
        assert np.abs(tensors[0][name] - tensors[1][name]).mean() < 1e-5, name


def test_an_empty_response_is_refused_before_anything_is_learned(base, scorer):
    learner = PPOLearner(ppo_job(base, scorer), Rank())
    with pytest.raises(DataError, match=r"prompts\.jsonl:2"):
        learner.learn([*rollouts(2), replace(rollouts(3)[2], response_ids=(), logprobs=())])
    assert learner.weights().version == 0


def test_a_new_preference_model_warms_the_value_function_up_and_leaves_the_first_one_alone(base, scorer):
    """With a policy that does not move, values are closer to the returns when the version is new."""
    samples = rollouts(16)
    explained = {}
    for version in (0, 1):
        job = replace(ppo_job(base, scorer, epochs=1, learning_rate=1e-12), value_warmup_epochs=4)
        scored = [replace(sample, preference_model_version=version) for sample in samples]
        explained[version] = PPOLearner(job, Rank()).learn(scored).metrics["reinforce/value/explained_variance"]
    assert explained[1] > explained[0] + 0.05


def test_two_preference_models_in_one_batch_are_refused(base, scorer):
    samples = rollouts(4)
    samples[2] = replace(samples[2], preference_model_version=1)
    with pytest.raises(DataError, match=r"prompts\.jsonl:2: scored by preference models 1 and 0 in one batch"):
        PPOLearner(ppo_job(base, scorer), Rank()).learn(samples)


def test_an_empty_batch_passes_by(base, scorer):
    learner = PPOLearner(ppo_job(base, scorer), Rank())
    before = tensors_of(learner.weights())
    assert (learner.learn([]).version, learner.weights().version) == (1, 1)
    assert all(np.array_equal(before[name], tensor) for name, tensor in tensors_of(learner.weights()).items())


def test_where_reference_and_value_function_are_changes_nothing(base, scorer):
    learned, partitioned = [], []
    for placement, value_cpu_offload in (("device", None), ("host", True), ("partitioned", None)):
        trainer = Trainer(
            micro_batch_tokens=64, reference_placement=placement, value_cpu_offload=value_cpu_offload, zero_stage=1
        )
        learner = PPOLearner(ppo_job(base, scorer, trainer), Rank())
        learned.append(learner.learn(rollouts(8)))
        reference = learner._networks._reference._module
        partitioned.append({hasattr(parameter, "ds_tensor") for parameter in reference.parameters()})
        learner.close()
    assert partitioned == [{False}, {False}, {True}]
    for other in learned[1:]:
        assert other.kl == pytest.approx(learned[0].kl, abs=1e-4)
        assert other.metrics == pytest.approx(learned[0].metrics, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "placed", "value_offload"),
    [
        ({}, "device", False),
        ({"cpu_offload": True}, "host", True),
        ({"cpu_offload": True, "zero_stage": 3}, "partitioned", True),
        ({"zero_stage": 3, "reference_placement": "host", "value_cpu_offload": True}, "host", True),
        ({"cpu_offload": True, "reference_placement": "device", "value_cpu_offload": False}, "device", False),
    ],
)
def test_placement_follows_the_policy_unless_it_is_set(settings, placed, value_offload):
    trainer = Trainer(**settings)
    assert trainer.places_reference == placed
    assert trainer.of_value.cpu_offload == value_offload
