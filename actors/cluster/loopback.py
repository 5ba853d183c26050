"""What runs on one machine talks to itself alone. Knows no Ray, so that runs without it use it, too."""

from __future__ import annotations

import os

#: For the libraries of engines and ranks. NCCL takes a bare name as a prefix.
LOOPBACK_ENVIRONMENT = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo", "VLLM_HOST_IP": "127.0.0.1"}


def stay_on_loopback() -> None:
    """Let this process and those that it starts from now on listen on loopback, whatever the user has set for
    clusters."""
    os.environ.update(LOOPBACK_ENVIRONMENT)


def is_loopback(address: str) -> bool:
    """Whether a cluster whose head is at ``address`` (host:port) is one machine that only talks to itself."""
    return address.startswith("127.")
