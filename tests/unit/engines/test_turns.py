"""Starts on one card take turns, whoever starts; a holder that dies holds up nobody."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlaif.config.schema import PoolSettings
from rlaif.engines import open_engine
from rlaif.engines.turns import turn_to_start, turns_taken
from rlaif.errors import EngineError

HOLD = """
import sys, time
from rlaif.engines.turns import turn_to_start, turns_taken
with turn_to_start("engine", float(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(float(sys.argv[2]))
print(turns_taken()[0].began, turns_taken()[0].ended)
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def holder(card: str, seconds: float, gpus: float = 0.5) -> subprocess.Popen:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": card}
    command = [sys.executable, "-c", HOLD, str(gpus), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def interval(process: subprocess.Popen) -> tuple[float, float]:
    out, _ = process.communicate(timeout=60)
    began, ended = map(float, out.split()[-2:])
    return began, ended


def test_starts_on_one_card_do_not_overlap() -> None:
    intervals = sorted(map(interval, [holder("3", 0.3) for _ in range(4)]))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(intervals))


def test_another_card_does_not_wait(monkeypatch) -> None:
    first = holder("3", 60)
    try:
        assert first.stdout.readline() == "holds\n"
        began, ended = interval(holder("4", 0.0))
        assert ended - began < 5
    finally:
        first.kill()
        first.wait()


def test_a_holder_that_is_killed_gives_its_turn_back(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    first = holder("3", 600)
    assert first.stdout.readline() == "holds\n"
    os.kill(first.pid, signal.SIGKILL)
    before = time.monotonic()
    with turn_to_start("engine", 0.5):
        assert time.monotonic() - before < 10
    first.wait()


@pytest.mark.parametrize("gpus", [0.0, 1.0, 2.0])
def test_whole_cards_and_none_wait_for_nobody(gpus, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    taken = turns_taken()
    with turn_to_start("engine", 0.5), turn_to_start("engine", gpus):
        pass
    assert [turn.card for turn in turns_taken()[len(taken) :]] == ["3"]


def test_engines_with_a_share_start_in_their_turn_and_keep_it_until_they_have_loaded(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5f/../7")  # ids may be anything
    settings = PoolSettings(engine="scripted", gpus=0.3, scripted={"load_s": 0.2})
    open_engine("labeller", None, settings)
    last = turns_taken()[-1]
    assert (last.who, last.card) == ("labeller", "GPU-5f/../7")
    assert last.ended - last.began >= 0.2


def test_a_place_without_room_for_locks_is_named(tmp_path: Path) -> None:
    (tmp_path / f"rlaif-{os.getuid()}").write_text("a file is in the way")
    refused = pytest.raises(EngineError, match=r"rlaif-\d+: locks .* cannot be made there: .*; set TMPDIR")
    with refused, turn_to_start("engine", 0.5):
        pass


def test_a_directory_for_locks_that_somebody_else_prepared_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"rlaif-{os.geteuid()}").symlink_to(elsewhere)
    with pytest.raises(EngineError, match="it is not this user's own directory"), turn_to_start("engine", 0.5):
        pass
    assert list(elsewhere.iterdir()) == []
