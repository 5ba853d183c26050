"""URLs of object storage and of the web, through fsspec; any other name is a path of this machine.

Credentials are read by each store's own library, from the environment and from its profile files. A URL that holds one
is refused, and no message repeats what may hold one.
"""

from __future__ import annotations

import errno
import itertools
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fsspec

from rlaif.errors import DataError, describe_error

ATTEMPTS = 5  #: of one question to a store
FIRST_WAIT_S = 0.5  #: before the second attempt; doubled before each later one
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10, 60

_Answer = TypeVar("_Answer")
_FileSystem = Any  #: an fsspec.AbstractFileSystem
_URL = re.compile(r"[a-z][a-z0-9+.:-]*://", re.IGNORECASE)
_LASTING = (PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError, LookupError)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")


class Unreachable(OSError):
    """A store that does not give what it is asked for; the message is one line, and names neither file nor secret."""


@dataclass(frozen=True, kw_only=True)
class _Store:
    package: str  #: what has to be installed
    credentials: str  #: where its library finds them
    endpoint: str  #: what a failed connection may be due to
    options: Callable[[], dict[str, Any]] = field(default=dict)
    attempts: int = ATTEMPTS  #: 1 where its library repeats what failed, and cannot be told not to
    has_ports: bool = False  #: ``:`` may follow the first part of a URL
    has_listings: bool = True


def _s3_options() -> dict[str, Any]:
    """One attempt of its own: ``ask`` repeats. What the user set for fsspec (``FSSPEC_S3_...``) holds besides."""
    settings = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": ANSWER_TIMEOUT_S}
    own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {**settings, "retries": {"total_max_attempts": 1}, **own}}


def _web_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=ANSWER_TIMEOUT_S)
    return {"client_kwargs": {"timeout": timeout}, "headers": {"Accept-Encoding": "identity"}}


_WEB = _Store(
    package="aiohttp",
    credentials="nowhere: only public files are read; download it",
    endpoint="the address",
    options=_web_options,
    has_ports=True,
    has_listings=False,
)
_STORES: Mapping[str, _Store] = {
    "s3": _Store(
        package="s3fs",
        credentials="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from AWS_PROFILE",
        endpoint="AWS_ENDPOINT_URL",
        options=_s3_options,
    ),
    "gs": _Store(
        package="gcsfs",
        credentials="GOOGLE_APPLICATION_CREDENTIALS or gcloud's login",
        endpoint="STORAGE_EMULATOR_HOST",
        attempts=1,
    ),
    "hf": _Store(package="huggingface_hub", credentials="HF_TOKEN or `hf auth login`", endpoint="HF_ENDPOINT"),
    "https": _WEB,
    "http": _WEB,
}
NO_PARTS = "its server does not give parts of files; download it"
NO_LISTINGS = "the web has no listings; name each file"
URL_KINDS = "s3://, gs://, hf://datasets/, https://"  #: for messages


def is_url(name: str) -> bool:
    return _URL.match(name) is not None


def check_url(name: str) -> None:
    """Raises DataError for a URL of another kind, and for one that holds, or may hold, a credential."""
    scheme, _, rest = name.partition("://")
    shown, first = f"{scheme}://...", rest.partition("/")[0]
    store = _STORES.get(scheme)
    has_port = store is not None and store.has_ports and re.fullmatch(r"[^@:]+:\d+", first)
    if "@" in first or (":" in first and not first.startswith("arn:") and not has_port):
        raise DataError(f"{shown}: holds credentials, which the run would write into its files; {_way_in(store)}")
    if store is None:
        raise DataError(f"{shown}: unknown kind of URL; use one of {URL_KINDS}, or a path")
    if store is _WEB and "?" in rest:
        raise DataError(f"{shown}: has a query, which may hold a credential; give a URL without it, or download it")
    if store is _WEB and "*" in rest:
        raise DataError(f"{name}: {NO_LISTINGS}")


def check_place(name: str) -> None:
    """Raises DataError for a URL under which nothing can be written."""
    if is_url(name):
        check_url(name)
        if _store_of(name) is _WEB:
            raise DataError(f"{name}: nothing can be written to the web; give a directory or an s3:// URL")


def _way_in(store: _Store | None) -> str:
    return "delete them from it" + (f"; they are read from {store.credentials}" if store and store is not _WEB else "")


def _store_of(url: str) -> _Store:
    return _STORES[url.partition("://")[0]]


def has_listings(name: str) -> bool:
    """Whether directories and patterns can be read where ``name`` is."""
    return not is_url(name) or _store_of(name).has_listings


def filesystem(name: str) -> _FileSystem:
    """What lists, reads and writes ``name``. Raises DataError."""
    if not is_url(name):
        return fsspec.filesystem("file")
    check_url(name)
    scheme = name.partition("://")[0]
    store = _STORES[scheme]
    try:
        system = fsspec.filesystem(scheme, use_listings_cache=False, **store.options())
    except ImportError as error:
        raise DataError(
            f"{name}: {store.package} is needed for {scheme}:// and is not installed; pip install {store.package}"
        ) from error
    system.retries = 1
    logging.getLogger(store.package).setLevel(logging.CRITICAL)  # failures are raised, too, and said in one line
    return system


def ask(name: str, question: Callable[[], _Answer]) -> _Answer:
    """What a file system says of ``name``. A store that fails for what may pass is asked again.

    Raises FileNotFoundError where there is nothing; of a store, Unreachable for everything else.
    """
    if not is_url(name):
        return question()
    for attempt in itertools.count(1):
        try:
            return question()
        except Exception as raised:  # what the libraries raise is not documented: one line, whatever it is
            error = _underlying(name, raised)
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "no such file or directory") from error
            if attempt == _store_of(name).attempts or not _may_pass(error):
                raise Unreachable(_cause(name, error, attempt)) from error
        time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
    raise AssertionError


def _underlying(name: str, error: Exception) -> Exception:
    """What is behind a missing file: fsspec reports any failure of the web and a missing bucket as one."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    is_failure = _store_of(name) is _WEB and _status(cause) not in (404, 410)
    return cause if is_failure or type(cause).__name__ == "NoSuchBucket" else error


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    is_lasting = type(error).__module__.startswith("botocore") and not _is_connection(error)
    return not (is_lasting or isinstance(error, _LASTING) or type(error).__name__ == "FileExpired")


def _status(error: Exception) -> int | None:
    """The HTTP status of an error of aiohttp or huggingface_hub."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_connection(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint({"ConnectionError", "HTTPClientError", "TimeoutError"})


def _cause(name: str, error: Exception, attempt: int) -> str:
    store, said = _store_of(name), describe_error(error)
    if type(error).__name__ == "NoSuchBucket":
        return "there is no such bucket"
    if type(error).__name__ in _NO_CREDENTIALS:
        return f"there are no credentials; they are read from {store.credentials}"
    if isinstance(error, PermissionError) or _status(error) in (401, 403):
        return f"access is denied; credentials are read from {store.credentials}"
    if "range requests" in said:
        return NO_PARTS
    if type(error).__name__ == "FileExpired":
        return "the file was replaced while it was read; run the same command again"
    if attempt == store.attempts:
        times = f" {attempt} times" if attempt > 1 else ""
        return f"failed{times} ({said}); check the connection and {store.endpoint}"
    return said
