"""What an engine that cannot start says: one line, what there was, what it asked for, which setting to change."""

import pytest

from rlaif.config.schema import PoolSettings
from rlaif.engines.device_memory import DeviceMemory, start_failure

GIB = 2**30
SETTINGS = PoolSettings(gpus=0.3, gpu_memory_fraction=0.3)


def told(free: float, error: BaseException, settings: PoolSettings = SETTINGS) -> str:
    memory = DeviceMemory(place="GPU 3", free=int(free * GIB), total=80 * GIB)
    return str(start_failure("labeller", settings, memory, error, on_gpu=True))


def test_a_card_with_too_little_left_says_how_much_it_has() -> None:
    line = told(10.0, ValueError("Free memory on device cuda:0 (10.0/80.0 GiB) on startup is less\nthan desired"))
    assert line == (
        "GPU 3 had 10.0 of 80.0 GiB free, and the engine asked for labeller.gpu_memory_fraction=0.3 of it, 24.0 GiB: "
        "ValueError: Free memory on device cuda:0 (10.0/80.0 GiB) on startup is less; "
        "set labeller.gpu_memory_fraction to at most 0.12, or lower the shares of the others on that card"
    )


def test_a_share_without_room_for_a_cache_is_to_be_raised() -> None:
    line = told(79.0, ValueError("No available memory for the cache blocks."))
    assert "GPU 3 had 79.0 of 80.0 GiB free, and the engine asked for labeller.gpu_memory_fraction=0.3" in line
    assert line.endswith(
        "raise labeller.gpu_memory_fraction if weights leave no room for the cache, or lower labeller.max_length or "
        "its max_in_flight"
    )


def test_tensor_parallel_ranks_have_cards_of_their_own() -> None:
    error = RuntimeError("Engine core initialization failed.")
    line = str(start_failure("labeller", PoolSettings(gpus=1, tensor_parallel=2), None, error, on_gpu=True))
    assert line.startswith("each rank asked for labeller.gpu_memory_fraction=0.9 of its GPU: RuntimeError: Engine core")


@pytest.mark.parametrize(
    ("kv_cache_gib", "fix"),
    [(500, "set labeller.kv_cache_gib to less than 9.6"), (1, "raise labeller.kv_cache_gib, or lower")],
)
def test_without_a_gpu_it_is_the_cache_of_this_machine(kv_cache_gib: float, fix: str) -> None:
    memory = DeviceMemory(place="this machine", free=int(9.6 * GIB), total=24 * GIB)
    settings = PoolSettings(kv_cache_gib=kv_cache_gib)
    line = str(start_failure("labeller", settings, memory, ValueError("too little"), on_gpu=False))
    assert line.startswith(f"this machine had 9.6 of 24.0 GiB free, and the engine asked for {kv_cache_gib} GiB for")
    assert fix in line and "\n" not in line
