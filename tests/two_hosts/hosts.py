"""Two hosts on one machine: network namespaces on a bridge, a Ray node in each, token authentication between them.

    this machine ── bridge ──┬── host 1: Ray head, Jobs API
                             └── host 2: Ray worker; its link can be cut

Hosts have addresses, loopback devices, hostnames and temporary directories of their own; they share this machine's
files, as a cluster shares its storage. A Ray node that ends is restarted, as KubeRay restarts a lost pod. Everything
has a random name, so that several clusters can run at once; the cleanup ends exactly the processes inside the two
namespaces.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import requests

BIN = Path(sys.executable).parent
GCS_PORT, JOBS_PORT = 6379, 8265
START_TIMEOUT_S = 240.0
OBJECT_STORE_BYTES = 300_000_000
#: A silent node is declared dead within 20 s, so that a minute without a link loses the node, as on a real cluster.
HEALTH_CHECK = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}


class Host:
    """One network namespace, attached to ``bridge`` with ``address``."""

    def __init__(self, name: str, bridge: str, address: str) -> None:
        self.name = name
        self.address = address
        self._link = f"{name}o"  #: the bridge's end of its virtual cable
        ip("netns", "add", name)
        ip("link", "add", self._link, "type", "veth", "peer", "name", f"{name}i", "netns", name)
        ip("link", "set", self._link, "master", bridge, "up")
        ip("-n", name, "address", "add", f"{address}/24", "dev", f"{name}i")
        for device in ("lo", f"{name}i"):
            ip("-n", name, "link", "set", device, "up")

    def keep_node(self, options: list[str], root: Path, environment: Mapping[str, str]) -> None:
        """Keep a Ray node running on this host, under the host's own hostname and with its own mounts."""
        ray = [str(BIN / "ray"), "start", "--block", f"--node-ip-address={self.address}"]
        ray += [f"--temp-dir={root / self.name}", f"--object-store-memory={OBJECT_STORE_BYTES}", *options]
        forever = f"hostname {self.name}; while true; do {shlex.join(ray)}; sleep 1; done"
        command = ["ip", "netns", "exec", self.name, "unshare", "--uts", "--mount", "sh", "-c", forever]
        with (root / f"{self.name}.log").open("w") as log:
            subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=root)

    def start(self, command: list[str]) -> subprocess.Popen:
        """Start a process on this host."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], stderr=subprocess.DEVNULL)

    def processes(self) -> list[psutil.Process]:
        """All processes on this host."""
        found = []
        for pid in ip("netns", "pids", self.name).split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def listeners(self) -> dict[int, int]:
        """Port -> process id, of everything on this host that listens to other hosts."""
        found = {}
        for line in ip(
            "netns", "exec", self.name, "ss", "--listening", "--tcp", "--numeric", "--processes", "-H"
        ).splitlines():
            _, _, _, place, _, *users = line.split()
            address, _, port = place.rpartition(":")
            if not address.startswith(("127.", "[::1]", "[::ffff:127.")):
                found[int(port)] = int(users[0].partition("pid=")[2].partition(",")[0]) if users else 0
        return found

    def set_link(self, state: str) -> None:
        """``up`` or ``down``."""
        ip("link", "set", self._link, state)

    @contextmanager
    def mounted(self, directory: Path, *options: str) -> Iterator[None]:
        """Something else in place of ``directory``, on this host only: each of ``options`` is for a call of mount."""
        raylet = next(process for process in self.processes() if process.name() == "raylet")
        inside = ["nsenter", f"--target={raylet.pid}", "--mount"]
        for each in options:
            subprocess.run([*inside, "mount", *each.split(), str(directory)], check=True)
        try:
            yield
        finally:
            subprocess.run([*inside, "umount", "--lazy", str(directory)], check=True)

    def remove(self) -> None:
        for _ in range(10):  # repeated, to catch processes that were just being started
            processes = self.processes()
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(processes, timeout=5)
        ip("link", "delete", self._link)
        ip("netns", "delete", self.name)


class Cluster:
    """The Ray cluster of both hosts, seen from this machine."""

    def __init__(self, head: Host, worker: Host, token: Path) -> None:
        self.head = head
        self.worker = worker
        self.url = f"http://{head.address}:{JOBS_PORT}"
        self.token = token

    def ask(self, path: str, **parameters: str) -> Any:
        """The dashboard's answer."""
        headers = {"Authorization": f"Bearer {self.token.read_text()}"}
        answer = requests.get(f"{self.url}/api/{path}", params=parameters, headers=headers, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def hosts_of_nodes(self) -> dict[str, Host]:
        """Node id -> host; a host that came back has several nodes."""
        hosts = {host.address: host for host in (self.head, self.worker)}
        return {node["node_id"]: hosts[node["node_ip"]] for node in self._list("nodes")}

    def num_nodes(self) -> int:
        return sum(node["state"] == "ALIVE" for node in self._list("nodes"))

    def actors(self) -> list[dict[str, Any]]:
        """Every actor so far, including dead ones."""
        return self._list("actors")

    def _list(self, what: str) -> list[dict[str, Any]]:
        return self.ask(f"v0/{what}", detail="true", limit="10000")["data"]["result"]["result"]

    def wait_for_nodes(self, num: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with suppress(requests.RequestException):
                if self.num_nodes() == num:
                    return
            time.sleep(0.5)
        logs = "\n".join(path.read_text()[-2000:] for path in self.token.parent.glob("*.log"))
        raise TimeoutError(f"waited {START_TIMEOUT_S:g} s for {num} Ray nodes\n{logs}")


@contextmanager
def two_hosts(head: Mapping[str, float], worker: Mapping[str, float]) -> Iterator[Cluster]:
    """A cluster whose hosts have these Ray resources (including ``CPU``); removes everything of it afterwards."""
    name = f"rl{secrets.token_hex(3)}"
    with ExitStack() as cleanup:
        root = Path(tempfile.mkdtemp(prefix=name, dir="/tmp"))  # short, because socket paths inside it must be
        cleanup.callback(shutil.rmtree, root, ignore_errors=True)
        prefix = _free_prefix()
        bridge = f"{name}b"
        ip("link", "add", bridge, "type", "bridge")
        cleanup.callback(ip, "link", "delete", bridge)
        guard = _guard([f"{name}h1", f"{name}h2"], bridge, root)
        cleanup.callback(guard.wait)
        cleanup.callback(guard.kill)
        ip("address", "add", f"{prefix}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        hosts = []
        for number in (1, 2):
            hosts.append(Host(f"{name}h{number}", bridge, f"{prefix}.1{number}"))
            cleanup.callback(hosts[-1].remove)
        cluster = Cluster(*hosts, _new_token(root))
        environment = _environment(cluster.token)
        port = [f"--port={GCS_PORT}", f"--dashboard-host={hosts[0].address}", f"--dashboard-port={JOBS_PORT}"]
        hosts[0].keep_node(["--head", *port, *_resources(head)], root, environment)
        cluster.wait_for_nodes(1)
        hosts[1].keep_node([f"--address={hosts[0].address}:{GCS_PORT}", *_resources(worker)], root, environment)
        cluster.wait_for_nodes(2)
        yield cluster


def _guard(names: list[str], bridge: str, root: Path) -> subprocess.Popen:
    """Start a process that cleans up if this test process is killed."""
    hosts = "".join(f"ip netns pids {name} | xargs -r kill -9; ip netns delete {name};" for name in names)
    script = f"while kill -0 {os.getpid()}; do sleep 2; done; {hosts} ip link delete {bridge}; rm -rf {root}"
    return subprocess.Popen(["sh", "-c", script], start_new_session=True, stderr=subprocess.DEVNULL)


def ip(*arguments: str) -> str:
    """Run the ``ip`` command; on failure, raises with its error output."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _free_prefix() -> str:
    """First three numbers of a private network that this machine does not use."""
    taken = ip("-4", "address") + ip("-4", "route")
    while (prefix := f"10.{random.randint(192, 254)}.{random.randint(0, 254)}") in taken:
        pass
    return prefix


def _new_token(root: Path) -> Path:
    path = root / "token"
    path.write_text(secrets.token_hex(16))
    path.chmod(0o600)
    return path


def _environment(token: Path) -> dict[str, str]:
    """Environment of the Ray nodes: this Python, without settings of any Ray or checkout around the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    own["PATH"] = f"{BIN}:{own['PATH']}"
    own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    return own | HEALTH_CHECK


def _resources(amounts: Mapping[str, float]) -> list[str]:
    custom = {name: amount for name, amount in amounts.items() if name != "CPU"}
    return [f"--num-cpus={amounts['CPU']:g}", "--num-gpus=0", f"--resources={json.dumps(custom)}"]
