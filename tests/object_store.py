"""An S3 server on loopback (moto's), and a line to it that breaks when a test says so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import fsspec
import pytest
import requests
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

KEY_ID, SECRET = "AKIALOOPBACKTEST", "n0t/aRealS3cret+ofAnyone"
BUCKET = "books"


class ObjectStore:
    """An empty bucket; ``url("a/b")`` names a key in it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.files = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        self.files.mkdir(BUCKET)

    def url(self, key: str = "") -> str:
        return f"s3://{BUCKET}/{key}".rstrip("/")

    def put(self, key: str, data: bytes) -> str:
        self.files.pipe_file(f"{BUCKET}/{key}", data)
        return self.url(key)

    def get(self, key: str) -> bytes:
        return self.files.cat_file(f"{BUCKET}/{key}")

    def names(self) -> list[str]:
        return sorted(name.removeprefix(f"{BUCKET}/") for name in self.files.find(BUCKET))

    def refuse_everyone(self) -> None:
        requests.post(f"{self.endpoint}/moto-api/reset-auth", data="0", timeout=10)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def object_store(s3_server, monkeypatch) -> Iterator[ObjectStore]:
    requests.post(f"{s3_server}/moto-api/reset", timeout=10)
    set_environment(monkeypatch, s3_server)
    yield ObjectStore(s3_server)
    requests.post(f"{s3_server}/moto-api/reset-auth", data="inf", timeout=10)
    S3FileSystem.clear_instance_cache()


def set_environment(monkeypatch, endpoint: str) -> None:
    """What a user sets before a command; sessions of earlier settings are forgotten."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()


@contextmanager
def breaking(endpoint: str, *, after: int, times: int) -> Iterator[str]:
    """A line to ``endpoint`` that breaks off the first ``times`` answers longer than ``after`` bytes at that point."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    left = [times]

    def pump(source: socket.socket, target: socket.socket, limit: int | None) -> None:
        sent = 0
        try:
            while data := source.recv(2**16):
                sent += len(data)
                if limit is not None and sent > limit and left[0] > 0:
                    left[0] -= 1
                    target.sendall(data[: len(data) // 2])
                    break
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((host, int(port)))
            threading.Thread(target=pump, args=(client, server, None), daemon=True).start()
            threading.Thread(target=pump, args=(server, client, after), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
