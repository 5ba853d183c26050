"""GPUs by the names that a configuration may use, with what ``rlaif plan`` must know of each.

Memory is what CUDA reports, in GiB, less than the name says. FLOP/s are dense bfloat16 with tensor cores, bandwidth is
that of the card's own memory. Source: NVIDIA's data sheets; compute capability: developer.nvidia.com/cuda-gpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Ampere and later compute in bfloat16: CUDA C++ Programming Guide, table of arithmetic instructions.
MIN_CAPABILITY = (8, 0)
#: For Linux; torch and vLLM of ``requirements/gpu.lock`` are CUDA 13.0 builds: CUDA 13.0 release notes, table 3.
MIN_DRIVER = (580, 65, 6)


@dataclass(frozen=True, kw_only=True)
class CardProfile:
    """``flops`` and ``bandwidth`` (bytes) are those of one second; ``capability`` is CUDA's compute capability."""

    memory_gib: float
    flops: float
    bandwidth: float
    capability: tuple[int, int]


def _card(memory_gib: float, tflops: float, gb_per_s: float, capability: tuple[int, int]) -> CardProfile:
    return CardProfile(memory_gib=memory_gib, flops=tflops * 1e12, bandwidth=gb_per_s * 1e9, capability=capability)


#: As ``resources.node.gpu`` names them.
CARDS: Mapping[str, CardProfile] = {
    "T4": _card(14.6, 65, 320, (7, 5)),
    "V100-32GB": _card(31.7, 125, 900, (7, 0)),
    "A10": _card(22.1, 125, 600, (8, 6)),
    "RTX-3090": _card(23.6, 71, 936, (8, 6)),
    "RTX-4090": _card(23.6, 165, 1008, (8, 9)),
    "L4": _card(22.1, 121, 300, (8, 9)),
    "L40S": _card(44.4, 362, 864, (8, 9)),
    "A100-40GB": _card(39.4, 312, 1555, (8, 0)),
    "A100-80GB": _card(79.1, 312, 2039, (8, 0)),
    "H100-80GB": _card(79.1, 989, 3350, (9, 0)),
    "H200": _card(139.8, 989, 4800, (9, 0)),
    "B200": _card(178.3, 2250, 8000, (10, 0)),
}
