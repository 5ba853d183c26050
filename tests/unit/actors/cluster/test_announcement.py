"""Finding a run that is going on, and the message for one that is not."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.cluster.announcement import announce, find_run
from rlaif.errors import UserError
from rlaif.storage import ownership


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    return tmp_path


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def rewrite(run_dir: Path, **facts: object) -> None:
    path = run_dir / "driver.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_a_run_is_found_while_it_lasts(run_dir: Path, listening: str) -> None:
    with announce(run_dir, address=listening, namespace="one"):
        run = find_run(run_dir)
        assert (run.pid, run.address, run.namespace) == (os.getpid(), listening, "one")
    with pytest.raises(UserError, match="not running on a cluster now"):
        find_run(run_dir)


def test_what_a_killed_driver_left_is_no_run(run_dir: Path, listening: str) -> None:
    with announce(run_dir, address=listening, namespace="one"):
        rewrite(run_dir, pid=2**22 + 1)  # above the largest pid on Linux
        with pytest.raises(UserError, match=rf"its driver \(pid {2**22 + 1} on .*\) has ended"):
            find_run(run_dir)


def test_a_cluster_that_does_not_answer_is_named(run_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with (
        announce(run_dir, address=address, namespace="one"),
        pytest.raises(UserError, match=f"{address} cannot be reached"),
    ):
        find_run(run_dir)


def test_a_ray_that_listens_on_another_host_only_cannot_be_asked_here(run_dir: Path, listening: str) -> None:
    with announce(run_dir, address=listening, namespace="one"):
        rewrite(run_dir, host="elsewhere")
        with pytest.raises(UserError, match=r"runs on elsewhere.*ask there"):
            find_run(run_dir)


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        find_run(tmp_path)


def test_only_its_user_can_read_an_announcement(run_dir: Path, listening: str) -> None:
    with announce(run_dir, address=listening, namespace="one"):
        assert stat.S_IMODE((run_dir / "driver.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "{}", '{"pid": 1', '{"pid": "x"}', "\x00", '{"address": "127.0.0.1:1"}']
)
def test_an_announcement_that_cannot_be_read_is_named(run_dir: Path, content: str) -> None:
    (run_dir / "driver.json").write_text(content)
    with pytest.raises(UserError, match=r"driver\.json: is (empty|damaged, or of another version: .*); it holds"):
        find_run(run_dir)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("pid", value) for value in (10**20, 2**31, 0, -1, -(10**20), 1.5, None, [], "x")),
        *(("started", value) for value in (float("nan"), float("inf"), -1, 10**400, None, "x")),
        *((name, value) for name in ("host", "address", "namespace", "auth_mode") for value in (1, [])),
    ],
)
def test_a_number_that_none_can_have_is_damage(run_dir: Path, listening: str, name: str, value: object) -> None:
    with announce(run_dir, address=listening, namespace="one"):
        rewrite(run_dir, **{name: value})
        with pytest.raises(UserError, match=r"driver\.json: is damaged, or of another version: .*; it holds"):
            find_run(run_dir)


@pytest.mark.parametrize(
    "address",
    [
        "\0:1",
        "x" * 300 + ":1",
        "[:1",
        "127.0.0.1:" + "9" * 5000,
        "",
        "x",
        "127.0.0.1:",
        "127.0.0.1:99999999",
        "127.0.0.1:x",
    ],
)
def test_an_address_that_is_none_cannot_be_reached(run_dir: Path, listening: str, address: str) -> None:
    with announce(run_dir, address=listening, namespace="one"):
        rewrite(run_dir, address=address)
        with pytest.raises(UserError, match="cannot be reached"):
            find_run(run_dir)


def test_another_users_announcement_is_not_followed(
    run_dir: Path, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "foreign_owner", lambda path: "user mallory" if path.name == "driver.json" else None)
    with (
        announce(run_dir, address=listening, namespace="one"),
        pytest.raises(UserError, match=r"driver\.json belongs to user mallory, who may have put anything there"),
    ):
        find_run(run_dir)
