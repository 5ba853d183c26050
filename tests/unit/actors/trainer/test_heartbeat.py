"""What counts as a sign of life of a rank."""

import socket
import time

from actors.trainer.heartbeat import MIN_MOVED, Heartbeat


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
