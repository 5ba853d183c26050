"""Which settings may differ when a run is resumed: those that decide whether it goes on, where, and how fast. What
decides which rows come out may not. (Sums in another order differ in their last digits; that is allowed.)"""

from __future__ import annotations

from collections.abc import Iterator

POOLS = ("generator", "labeller", "scorer")
#: Of engines: how many there are, where, with how much memory and patience.
OF_POOLS = [
    "engines",
    "min",
    "max",
    "autoscale",
    "cpus",
    "gpus",
    "threads",
    "placement",
    "price_per_hour",
    "gpu_memory_fraction",
    "tensor_parallel",
    "kv_cache_gib",
    "chunk_rows",
    "max_in_flight",
    "start_timeout_s",
    "idle_timeout_s",
]
TRAINERS = ("policy_trainer", "preference_trainer")
#: Of ranks: likewise, and how they share a model.
OF_TRAINERS = [
    "ranks",
    "fit_ranks",
    "cpus",
    "gpus",
    "threads",
    "placement",
    "zero_stage",
    "cpu_offload",
    "reference_placement",
    "value_cpu_offload",
    "checkpoint_activations",
    "micro_batch_tokens",
    "start_timeout_s",
    "silence_timeout_s",
    "max_failures",
]
OTHERS = [
    "labelling.gate",
    "max_loss",
    "run_dir",
    "resources",
    "reinforcement.checkpoint_every",
    "reinforcement.checkpoint_in_background",
    "reinforcement.keep_checkpoints",
    "reinforcement.stall_timeout_s",
]


def _names() -> Iterator[str]:
    yield from OTHERS
    for roles, settings in ((POOLS, OF_POOLS), (TRAINERS, OF_TRAINERS)):
        yield from (f"{role}.{setting}" for role in roles for setting in settings)


MAY_CHANGE = frozenset(_names())  #: keys of settings, and of sections whose settings all may


def may_change(key: str) -> bool:
    """Whether the setting with this dotted key may."""
    parts = key.split(".")
    return any(".".join(parts[: end + 1]) in MAY_CHANGE for end in range(len(parts)))
