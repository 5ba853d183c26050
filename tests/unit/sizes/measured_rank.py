"""What real ranks hold and write, for the tests of their formulas; they run in processes of their own."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlaif.config.trainer import Trainer

Case = tuple[int, str, bool, str]  #: stage, dtype, offload, dtype of summed gradients
#: Of parameters: small, yet large beside the tensors of a few tokens.
MODEL = {
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
}
TIMEOUT_S = 250


def held() -> int:
    """Bytes of all tensors of this process, each storage once."""
    import torch

    gc.collect()
    found = {}
    tensors = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    for tensor in tensors:
        found[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
    return sum(found.values())


def trainer_of(case: Case, **settings: Any) -> Trainer:
    stage, dtype, offload, summed = case
    return Trainer(zero_stage=stage, dtype=dtype, cpu_offload=offload, grad_accum_dtype=summed, **settings)


def measure(index: int, world_size: int, case: Case, checkpoint: Path) -> dict[str, int]:
    """Bytes that a rank holds at the end of a step's second backward pass; those of its group's checkpoint."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlaif.jobs import Rank
    from rlaif.training.deepspeed import DeepSpeedModel, start_rank
    from rlaif.training.models import PolicyModel

    trainer = trainer_of(case, ranks=world_size)
    rank = Rank(index=index, world_size=world_size)
    start_rank(rank, trainer)
    before = held()
    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(**MODEL)).to(getattr(torch, trainer.dtype))
    model = DeepSpeedModel(PolicyModel(network), trainer, rank, learning_rate=1e-3)
    seen: list[int] = []

    def watch(module: Any, inputs: Any, output: Any) -> None:
        output.register_hook(lambda gradient: seen.append(held() - before))

    network.get_input_embeddings().register_forward_hook(watch)
    ids, positions = torch.zeros(1, 4, dtype=torch.long), torch.arange(3)
    for _ in range(2):
        model.step([[0], [0]], lambda rows: (-model(ids, positions, ids[0, 1:])[0].sum(), {}))
    model.begin_checkpoint(checkpoint, in_background=True).finish()
    torch.distributed.barrier()
    files = sum(file.stat().st_size for file in checkpoint.rglob("*"))
    torch.distributed.barrier()
    model.close()
    return {"backward": seen[-1], "checkpoint": files}


def _measure_all(index: int, world_size: int, cases: Sequence[Case], directory: str) -> None:
    import torch.distributed

    os.environ["LOCAL_RANK"] = str(index)
    if world_size > 1:
        store = torch.distributed.FileStore(f"{directory}/store", world_size)
        torch.distributed.init_process_group("gloo", store=store, rank=index, world_size=world_size)
    found = [
        measure(index, world_size, case, Path(directory) / f"checkpoint_{place}") for place, case in enumerate(cases)
    ]
    Path(f"{directory}/{index}.json").write_text(json.dumps(found))


def measured(world_size: int, cases: Sequence[Case]) -> dict[Case, dict[str, int]]:
    """Of rank 0 of a group, by case."""
    with tempfile.TemporaryDirectory() as directory:
        run_all(_measure_all, [(index, world_size, cases, directory) for index in range(world_size)])
        return dict(zip(cases, json.loads(Path(f"{directory}/0.json").read_text()), strict=True))


def run_all(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """One process for each tuple of arguments; asserts that all end well."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_S)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def resident(case: Case, directory: str) -> None:
    """Train SmolLM2's network, with random weights, for two steps, and write how much larger the process became."""
    import resource

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from rlaif.jobs import Rank
    from rlaif.training.deepspeed import DeepSpeedModel, start_rank
    from rlaif.training.models import PolicyModel
    from tests.public_models import SMOLLM2_135M

    trainer = trainer_of(case, checkpoint_activations=True)
    rank = Rank(index=0, world_size=1)
    start_rank(rank, trainer)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    config = LlamaConfig(**{key: value for key, value in SMOLLM2_135M.items() if key != "model_type"})
    network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, trainer.dtype))
    model = DeepSpeedModel(PolicyModel(network), trainer, rank, learning_rate=1e-6)
    ids, positions = torch.zeros(1, 64, dtype=torch.long), torch.arange(63)
    for _ in range(2):
        model.step([[0]], lambda rows: (-model(ids, positions, ids[0, 1:])[0].sum(), {}))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(directory, "resident.json").write_text(json.dumps(peak - before))
