"""What two gloo ranks learn under every ZeRO stage, with offload, in bfloat16, with checkpointed activations and a
chunked head, equals what plain torch learns; and nothing is compiled for it."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from rlaif.config.trainer import Trainer
from rlaif.jobs import Rank
from rlaif.training import models
from tests.unit.training.conftest import full_state, sft_rows
from tests.unit.training.two_ranks import on_two_ranks

LEARNING_RATE, MAX_GRAD_NORM, NUM_STEPS = 1e-3, 0.5, 3
STAGES = (0, 1, 2, 3)
#: (stage, offload, dtype, saves memory, dtype of sums). Stage 0 has no offload, and becomes 1 or 2 in bfloat16.
CASES = [
    (*case, sums)
    for case in itertools.product(STAGES, (False, True), ("float32", "bfloat16"), (False, True))
    if case[0] or case[1:3] == (False, "float32")
    for sums in (("float32",) if case[2] == "float32" or case[3] else ("float32", "bfloat16"))
]
State = dict[str, torch.Tensor]


def loss_of(model, rows: Sequence[dict], num_tokens: int) -> torch.Tensor:
    """Negative log-likelihood of all tokens but the first of each row."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    positions = [i * width + j for i, row in enumerate(rows) for j in range(len(row["input_ids"]) - 1)]
    logprobs, _ = model(ids, torch.tensor(positions), ids.flatten()[torch.tensor(positions) + 1])
    return -logprobs.sum() / num_tokens


def batches() -> list[list[dict]]:
    rows = sft_rows(8 * NUM_STEPS)
    return [rows[8 * i : 8 * (i + 1)] for i in range(NUM_STEPS)]


def num_tokens(rows: Sequence[dict]) -> int:
    return sum(len(row["input_ids"]) - 1 for row in rows)


def plain(base: str, dtype: str) -> tuple[State, State]:
    """The weights before and after, without DeepSpeed: float32 master weights, which the model has in ``dtype``."""
    model = models.load_policy(base, dtype)
    masters = [parameter.detach().float() for parameter in model.parameters()]
    before = {name: tensor.detach().float().clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(masters, LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    for rows in batches():
        loss_of(model, rows, num_tokens(rows)).backward()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, MAX_GRAD_NORM)
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.copy_(master)
    return before, {name: tensor.float() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def expected(base) -> dict[str, tuple[State, State]]:
    return {dtype: plain(base, dtype) for dtype in ("float32", "bfloat16")}


def learn(base: str, rank: Rank, case: tuple) -> State:
    from rlaif.training.deepspeed import DeepSpeedModel, start_rank
    from rlaif.training.deepspeed_config import partition_config

    stage, offload, dtype, saves_memory, sums = case
    trainer = Trainer(
        zero_stage=stage,
        cpu_offload=offload,
        dtype=dtype,
        checkpoint_activations=saves_memory,
        grad_accum_dtype=sums,
    )
    start_rank(rank, trainer)
    models.HEAD_LOGITS = 2**20 if saves_memory else 2**26  # three chunks
    model = models.load_policy(base, dtype, partition_config(trainer))
    trained = DeepSpeedModel(model, trainer, rank, learning_rate=LEARNING_RATE, max_grad_norm=MAX_GRAD_NORM)
    for rows in batches():
        share = rows[rank.index :: rank.world_size]
        plan = [share[:1], share[1:]]
        of_tokens = partial(loss_of, trained, num_tokens=num_tokens(rows))
        trained.step(plan, lambda taken, of_tokens=of_tokens: (of_tokens(taken), {}))
    state = full_state(trained)
    trained.close()
    return {name: tensor.float() for name, tensor in state.items()}


MANY = 32


def gradient_error(base: str, rank: Rank, stage: int, sums: str) -> float:
    """Of a bfloat16 model over many micro-batches of one row, relative to their gradients summed in float64."""
    from deepspeed.utils import safe_get_full_optimizer_state

    from rlaif.training.deepspeed import DeepSpeedModel, start_rank
    from rlaif.training.deepspeed_config import partition_config

    rows = sft_rows(2 * MANY)
    of_tokens = partial(loss_of, num_tokens=num_tokens(rows))
    model = models.load_policy(base, "bfloat16")
    exact = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in model.parameters()]
    for row in rows:
        of_tokens(model, [row]).backward()
        for total, parameter in zip(exact, model.parameters(), strict=True):
            total += parameter.grad
        model.zero_grad()
    trainer = Trainer(zero_stage=stage, dtype="bfloat16", grad_accum_dtype=sums)
    start_rank(rank, trainer)
    model = models.load_policy(base, "bfloat16", partition_config(trainer))
    trained = DeepSpeedModel(model, trainer, rank, learning_rate=LEARNING_RATE, max_grad_norm=1e9)
    trained.step([[row] for row in rows[rank.index :: 2]], lambda taken: (of_tokens(trained, taken), {}))
    # After one step, Adam's first moment is a tenth of the gradient.
    moments = [safe_get_full_optimizer_state(parameter, "exp_avg") for parameter in model.parameters()]
    trained.close()
    apart = sum((10 * found - wanted).square().sum() for found, wanted in zip(moments, exact, strict=True))
    return float((apart / sum(wanted.square().sum() for wanted in exact)).sqrt())


def learned_by(rank: Rank, directory: Path, base: str) -> dict[tuple, State]:
    """By case; the errors of gradients by ("error", stage, dtype of sums)."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    def refuse(builder, *_, **__):
        raise AssertionError(f"{builder.name} would be compiled")

    OpBuilder.load = OpBuilder.jit_load = refuse
    found = {}
    for case in CASES:
        print(case, flush=True)  # shown if it fails
        found[case] = learn(base, rank, case)
    for stage, sums in itertools.product(STAGES[1:], ("float32", "bfloat16")):
        found["error", stage, sums] = gradient_error(base, rank, stage, sums)
    return found


@pytest.fixture(scope="module")
def learned(base, tmp_path_factory) -> dict[tuple, State]:
    return on_two_ranks(learned_by, tmp_path_factory.mktemp("two_ranks"), base)[0]


@pytest.mark.parametrize("case", CASES)
def test_ranks_learn_what_plain_torch_learns(expected, learned, case):
    before, after = expected[case[2]]
    moved = torch.sqrt(sum((after[name] - before[name]).square().sum() for name in after))
    apart = torch.sqrt(sum((after[name] - learned[case][name]).square().sum() for name in after))
    assert apart / moved < (0.001 if case[2] == "float32" else 0.1)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_gradients_of_many_micro_batches_are_summed_in_float32(learned, stage):
    """Each row's own gradient is rounded to bfloat16 once; what is left grows with the number of rows in bfloat16."""
    assert learned["error", stage, "float32"] < 0.003 < learned["error", stage, "bfloat16"] < 0.01
