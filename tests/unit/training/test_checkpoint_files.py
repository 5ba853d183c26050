"""A checkpoint holds the same numbers for any number of ranks under any ZeRO stage, to the last bit."""

import errno
import itertools
import json
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from rlaif.config.trainer import Trainer
from rlaif.errors import ModelError
from rlaif.jobs import Rank
from rlaif.training import checkpoint_files, models
from rlaif.training.deepspeed import DeepSpeedModel, start_rank
from rlaif.training.deepspeed_config import partition_config
from tests.tiny_models import saved, tiny_config
from tests.unit.training.conftest import full_state, sft_rows
from tests.unit.training.test_zero import loss_of, num_tokens
from tests.unit.training.two_ranks import on_two_ranks

#: (ZeRO stage, offload, dtype)
CASES = [
    case
    for case in itertools.product((0, 1, 2, 3), (False, True), ("float32", "bfloat16"))
    if case[0] or case[1:] == (False, "float32")
]
WRITERS = [(0, False, "float32"), (3, True, "bfloat16")]  #: of the checkpoints that two ranks go on from
FILE_BYTES = 2**18  #: so that a rank writes several files
Numbers = dict[tuple[str, str], dict[int, torch.Tensor]]  #: by kind and parameter, the stretches by their starts


def trained(base: str, case: tuple[int, bool, str], rank: Rank) -> DeepSpeedModel:
    stage, offload, dtype = case
    trainer = Trainer(zero_stage=stage, cpu_offload=offload, dtype=dtype)
    start_rank(rank, trainer)
    model = models.load_policy(base, dtype, partition_config(trainer))
    return DeepSpeedModel(model, trainer, rank, learning_rate=1e-3)


def step(model: DeepSpeedModel, number: int, rank: Rank) -> None:
    rows = sft_rows(24)[8 * number : 8 * (number + 1)]
    of_tokens = partial(loss_of, model, num_tokens=num_tokens(rows))
    model.step([rows[rank.index :: rank.world_size]], lambda taken: (of_tokens(taken), {}))


def numbers(model: DeepSpeedModel) -> Numbers:
    """What this rank owns."""
    found: Numbers = {}
    for stretch in model._owned().stretches():
        for kind, value in stretch.values.items():
            found.setdefault((kind, stretch.name), {})[stretch.start] = value.cpu().clone()
    return found


def whole(*ranks: Numbers) -> dict[tuple[str, str], torch.Tensor]:
    """Put together what the ranks own, with no gap and no overlap."""
    keys = {key for owned in ranks for key in owned}
    put_together = {}
    for key in keys:
        parts = sorted((start, part) for owned in ranks for start, part in owned.get(key, {}).items())
        ends = [start + len(part) for start, part in parts]
        assert [start for start, _ in parts] == [0, *ends[:-1]], key
        put_together[key] = torch.cat([part for _, part in parts])
    return put_together


def assert_same(one: Mapping[tuple[str, str], torch.Tensor], other: Mapping[tuple[str, str], torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        assert torch.equal(tensor, other[key]), key


def written(base: str, case: tuple[int, bool, str], path: Path) -> dict[tuple[str, str], torch.Tensor]:
    """What one rank wrote after two steps."""
    model = trained(base, case, Rank())
    for number in range(2):
        step(model, number, Rank())
    model.begin_checkpoint(path, in_background=True).finish()
    found = whole(numbers(model))
    model.close()
    return found


def go_on(rank: Rank, directory: Path, base: str, checkpoints: str) -> dict[tuple, tuple[Numbers, Numbers, dict]]:
    """By writer and case: what is owned after a checkpoint of one rank was loaded, what after one more step, and the
    weights that passes used in between. Leaves a checkpoint of each case after that step."""
    checkpoint_files.FILE_BYTES = FILE_BYTES
    found = {}
    for writer, case in itertools.product(WRITERS, CASES):
        print(writer, case, flush=True)
        model = trained(base, case, rank)
        model.load_checkpoint(Path(checkpoints, str(WRITERS.index(writer))))
        loaded, used = numbers(model), full_state(model)
        assert model.num_steps == 2
        step(model, 2, rank)
        model.begin_checkpoint(directory / f"{WRITERS.index(writer)}-{CASES.index(case)}", case[1]).finish()
        found[writer, case] = (loaded, numbers(model), used)
        model.close()
    return found


@pytest.fixture(scope="module")
def from_one_to_two(base, tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoints")
    before = {writer: written(base, writer, directory / str(i)) for i, writer in enumerate(WRITERS)}
    return directory, before, on_two_ranks(go_on, directory, base, str(directory))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("writer", WRITERS)
def test_two_ranks_go_on_from_the_numbers_of_one(from_one_to_two, writer, case):
    _, before, ranks = from_one_to_two
    owned = [rank[writer, case][0] for rank in ranks]
    assert_same(whole(*owned) if case[0] else whole(owned[0]), before[writer])
    used = ranks[0][writer, case][2]
    assert used.keys() - {name for _, name in before[writer]} == {"language_model.lm_head.weight"}  # tied
    for (kind, name), tensor in before[writer].items():
        assert kind != "weight" or torch.equal(used[name].flatten(), tensor.to(used[name].dtype)), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reader", [(0, False, "float32"), (1, True, "float32"), (3, False, "bfloat16")])
def test_one_rank_goes_on_from_the_numbers_of_two(base, from_one_to_two, reader, case):
    directory, _, ranks = from_one_to_two
    model = trained(base, reader, Rank())
    checkpoint = directory / f"0-{CASES.index(case)}"
    assert len(list(checkpoint.glob("rank-00000-*"))) > 1
    assert len({file.name[:10] for file in checkpoint.glob("rank-*")}) == (2 if case[0] else 1)
    model.load_checkpoint(checkpoint)
    owned = [rank[WRITERS[0], case][1] for rank in ranks]
    assert_same(whole(numbers(model)), whole(*owned) if case[0] else whole(owned[0]))
    assert (model.num_steps, model._owned().adam_steps) == (3, 3)
    model.close()


@pytest.mark.parametrize("case", CASES)
def test_equal_ranks_go_on_exactly(base, tmp_path, case):
    undisturbed = trained(base, case, Rank())
    for number in range(3):
        if number == 2:
            undisturbed.begin_checkpoint(tmp_path, in_background=False).finish()
        step(undisturbed, number, Rank())
    resumed = trained(base, case, Rank())
    resumed.load_checkpoint(tmp_path)
    step(resumed, 2, Rank())
    assert_same(whole(numbers(resumed)), whole(numbers(undisturbed)))
    for name, tensor in full_state(resumed).items():
        assert torch.equal(tensor, full_state(undisturbed)[name]), name


@pytest.mark.parametrize("case", CASES)
def test_what_is_learned_while_a_checkpoint_is_written_is_not_in_it(base, tmp_path, case, monkeypatch):
    stepped = threading.Event()

    def late(*arguments: Any, **named: Any) -> None:
        assert stepped.wait(60)
        save_file(*arguments, **named)

    monkeypatch.setattr(checkpoint_files, "save_file", late)
    model = trained(base, case, Rank())
    step(model, 0, Rank())
    before = {key: tensor.clone() for key, tensor in whole(numbers(model)).items()}
    writer = model.begin_checkpoint(tmp_path, in_background=True)
    step(model, 1, Rank())
    assert not writer.is_written() and not list(tmp_path.iterdir())
    stepped.set()
    writer.finish()
    assert writer.is_written()
    model.load_checkpoint(tmp_path)
    assert_same(whole(numbers(model)), before)
    assert model.num_steps == 1


@pytest.mark.parametrize("in_background", [False, True])
def test_what_cannot_be_written_is_raised(base, tmp_path, in_background, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "save_file", full)
    writer = trained(base, (1, False, "float32"), Rank()).begin_checkpoint(tmp_path, in_background)
    with pytest.raises(OSError, match="No space left"):
        writer.finish()
    with pytest.raises(OSError, match="No space left"):
        writer.is_written()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_checkpoint_before_the_first_step_is_whole(base, tmp_path, stage):
    model = trained(base, (stage, False, "float32"), Rank())
    model.begin_checkpoint(tmp_path, in_background=True).finish()
    resumed = trained(base, (stage, False, "float32"), Rank())
    resumed.load_checkpoint(tmp_path)
    for other in (model, resumed):
        step(other, 0, Rank())
    assert_same(whole(numbers(model)), whole(numbers(resumed)))


def damage_missing(checkpoint: Path) -> str:
    sorted(checkpoint.glob("rank-*"))[-1].unlink()
    return "numbers of .* are missing"


def damage_cut(checkpoint: Path) -> str:
    file = sorted(checkpoint.glob("rank-*"))[0]
    file.write_bytes(file.read_bytes()[:-100])
    return "is not a whole checkpoint"


def damage_empty(checkpoint: Path) -> str:
    sorted(checkpoint.glob("rank-*"))[0].write_bytes(b"")
    return "is not a whole checkpoint"


def damage_unfinished(checkpoint: Path) -> str:
    (checkpoint / "steps.json").unlink()
    return "is not a whole checkpoint"


def damage_steps(checkpoint: Path) -> str:
    (checkpoint / "steps.json").write_text(json.dumps({"taken": "two"}))
    return "is not a whole checkpoint"


@pytest.mark.parametrize(
    "damage", [damage_missing, damage_cut, damage_empty, damage_unfinished, damage_steps], ids=lambda d: d.__name__
)
def test_a_damaged_checkpoint_is_named(base, tmp_path, damage, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "FILE_BYTES", FILE_BYTES)
    model = trained(base, (3, False, "float32"), Rank())
    model.begin_checkpoint(tmp_path, in_background=True).finish()
    with pytest.raises(ModelError, match=f"{tmp_path}: .*{damage(tmp_path)}"):
        model.load_checkpoint(tmp_path)


def test_the_checkpoint_of_another_model_is_refused(base, tmp_path):
    config = tiny_config(tied=True)
    config.intermediate_size *= 2
    other = saved(LlamaForCausalLM(config), tmp_path / "other")
    model = trained(other, (0, False, "float32"), Rank())
    model.begin_checkpoint(tmp_path / "checkpoint", in_background=True).finish()
    with pytest.raises(ModelError, match=r"has \d+ numbers there and \d+ in the model"):
        trained(base, (0, False, "float32"), Rank()).load_checkpoint(tmp_path / "checkpoint")
