"""What listens between hosts, and whether it asks for the cluster's token: each listener is asked without one."""

from __future__ import annotations

import sys
import time
from collections import Counter

import grpc
import pytest
import requests

from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from tests.conftest import write_lines
from tests.two_hosts.hosts import Cluster
from tests.two_hosts.test_submit import settings, start  # noqa: F401

#: A method of each of Ray's gRPC services.
METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.RayletDriver/ClusterInfo",
)
PATIENCE_S = 1.5
TCP_STORE = "import time, torch.distributed as d; store = d.TCPStore('127.0.0.1', 0, 1, True); time.sleep(60)"
PAGES = "from http.server import *; HTTPServer(('', 0), SimpleHTTPRequestHandler).serve_forever()"
TOKEN, NUMBERS, SILENT, OPEN = "asks for a token", "metrics, by HTTP", "does not answer", "answers all"


def kind_of(address: str, port: int) -> str:
    """What a listener says to somebody without a token."""
    try:
        answer = requests.get(f"http://{address}:{port}/metrics", timeout=PATIENCE_S)
        if answer.status_code in (401, 403):
            return TOKEN
        return NUMBERS if answer.ok and answer.text.startswith("# ") else OPEN
    except requests.RequestException:  # it does not speak HTTP/1
        pass
    codes = set()
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(PATIENCE_S)
        except grpc.FutureTimeoutError:
            return SILENT
        for method in METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=PATIENCE_S)
                return OPEN
            except grpc.RpcError as error:
                codes.add(error.code())
    return TOKEN if grpc.StatusCode.UNAUTHENTICATED in codes else OPEN


def test_only_metrics_talk_without_a_token(cluster: Cluster, settings, tmp_path):  # noqa: F811
    settings["policy_trainer"] |= {"ranks": 2, "placement": {"trainer_node": 0.25}}
    settings["data"]["red_team"] = write_lines(tmp_path / "few.jsonl", [{"prompt": f"Why {i}?"} for i in range(8)])
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(Config.model_validate(settings)))
    job = start(cluster, str(config), "--address", cluster.url)
    kinds: dict[tuple[str, int, int], str] = {}  # of (host, process, port)
    while job.poll() is None:
        for host in (cluster.head, cluster.worker):
            for port, pid in host.listeners().items():
                listener = (host.address, pid, port)
                if listener not in kinds:
                    kind = kind_of(host.address, port)
                    if host.listeners().get(port) == pid:  # it did not end meanwhile
                        kinds[listener] = kind
        time.sleep(0.3)
    stdout, stderr = job.communicate()
    assert job.returncode == 0, stdout[-4000:] + stderr
    hosts = cluster.hosts_of_nodes()
    placed = [actor for actor in cluster.actors() if actor["node_id"] in hosts]
    names = {(hosts[actor["node_id"]].address, actor["pid"]): actor["class_name"] for actor in placed}
    table = Counter((names.get(listener[:2], "Ray's own"), listener[0], kind) for listener, kind in kinds.items())
    for (name, address, kind), num in sorted(table.items()):
        print(f"{name:28} {address:16} {kind:18} {num:3}")
    assert set(kinds.values()) == {TOKEN, NUMBERS}
    assert "RayTrainWorker" in {name for name, _, _ in table}, "ranks were looked at"


@pytest.mark.parametrize(("code", "kind"), [(TCP_STORE, SILENT), (PAGES, OPEN)])
def test_a_listener_that_asks_for_no_token_is_seen(cluster: Cluster, code, kind):
    before = cluster.worker.listeners()
    process = cluster.worker.start([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while not (new := cluster.worker.listeners().keys() - before):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert [kind_of(cluster.worker.address, port) for port in new] == [kind]
    finally:
        process.kill()
        process.wait()
