"""Work in a thread of its own, without Ray running."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from actors.cluster.remote import in_thread


async def test_a_thread_gives_back_what_its_work_returns_or_raises() -> None:
    assert await in_thread(lambda: 7) == 7
    with pytest.raises(KeyError, match="gone"):
        await in_thread(lambda: {}["gone"])


async def test_nobody_needs_to_wait_for_a_thread() -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    abandoned = in_thread(lambda: asyncio.run_coroutine_threadsafe(release.wait(), loop).result())
    abandoned.cancel()
    release.set()
    await in_thread(lambda: None)
    assert abandoned.cancelled()


def test_a_process_ends_although_a_thread_of_it_never_does() -> None:
    program = """
import asyncio, threading
from actors.cluster.remote import in_thread

async def main():
    in_thread(threading.Event().wait)
    print("done")

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
