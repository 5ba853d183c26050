"""Work on two gloo ranks, processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch.distributed

from rlaif.jobs import Rank

TIMEOUT_S = 500


def on_two_ranks(work: Callable[..., object], directory: Path, *arguments: object) -> list:
    """What ``work(rank, directory, *arguments)`` returns on each of two ranks, which meet in ``directory``."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(index, work, directory, arguments)) for index in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(TIMEOUT_S)
        if rank.is_alive():
            rank.kill()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    return [pickle.loads((directory / f"result-{index}.pkl").read_bytes()) for index in range(2)]


def _rank(index: int, work: Callable[..., object], directory: Path, arguments: tuple) -> None:
    from rlaif.training.process_group import leave_process_group  # before there is a group to leave

    store = torch.distributed.FileStore(str(directory / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=index, world_size=2)
    os.environ["LOCAL_RANK"] = str(index)
    result = work(Rank(index=index, world_size=2), directory, *arguments)
    (directory / f"result-{index}.pkl").write_bytes(pickle.dumps(result))
    assert "pt_gloo_runloop" in _threads()
    leave_process_group()
    assert "pt_gloo_runloop" not in _threads(), "it may need an interpreter that is gone"


def _threads() -> list[str]:
    """The names of this process's threads, those of C++ included."""
    return [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
