"""What counts as a sign of life of a rank."""

import fcntl
import os
import socket
import threading
import time

from actors.trainer.heartbeat import Heartbeat
from rlaif.engines.turns import turn_to_start
from rlaif.places.traffic import MIN_MOVED


def test_beats_are_sent_once_in_a_period():
    sent = []
    heartbeat = Heartbeat(lambda: sent.append(time.monotonic()), silence_timeout_s=2)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        heartbeat.beat()
    assert 4 <= len(sent) <= 6, "five periods of 0.2 s"


def test_reading_and_writing_files_is_a_sign_and_waiting_or_talking_is_none(tmp_path):
    sent = []
    Heartbeat(lambda: sent.append(None), silence_timeout_s=1).watch_files()
    time.sleep(0.3)  # what was read to start the thread
    before = len(sent)
    here, there = socket.socketpair()
    for _ in range(20):  # a rank that waits: it sleeps, and keeps its connections up
        here.sendall(bytes(50_000))
        received = 0
        while received < 50_000:
            received += len(there.recv(50_000))
        time.sleep(0.02)
    assert len(sent) == before
    (tmp_path / "weights").write_bytes(bytes(4 * MIN_MOVED))
    time.sleep(0.3)
    written = len(sent)
    assert written > before
    (tmp_path / "weights").read_bytes()
    time.sleep(0.3)
    assert len(sent) > written


def test_waiting_for_a_turn_on_a_shared_gpu_is_a_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with turn_to_start("engine", 0.5):
        pass
    lock = os.open(tmp_path / f"rlaif-{os.getuid()}" / "gpu-0.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sent = []
    Heartbeat(lambda: sent.append(None), silence_timeout_s=1).watch_files()
    time.sleep(0.3)
    before = len(sent)

    def load() -> None:
        with turn_to_start("policy_trainer", 0.5):
            pass

    waiting = threading.Thread(target=load)
    waiting.start()
    time.sleep(0.5)
    assert len(sent) > before
    os.close(lock)
    waiting.join()
    time.sleep(0.2)
    before = len(sent)
    time.sleep(0.5)
    assert len(sent) == before
