"""A run on another cluster, over the Ray Jobs API: checked here first, sent, then followed to its end.

The job is ``rlaif run`` on the cluster's head node, in a working directory that ``parcel`` packed. Whatever can be
checked from here is checked before anything is sent: the configuration, paths that no node sees, and whether the nodes
can hold the plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from actors.cluster.placement import check_nodes, plan
from actors.cluster.waiting import within
from actors.submit.parcel import CONFIG, pack
from actors.work import PIPELINE, check_work
from rlaif.config.schema import Config
from rlaif.errors import Interrupted, RunError, UserError, WaitTimeoutError

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0  #: for the cluster to answer one question
SILENCE_S = 30.0  #: of a job's log, after which its state is checked
LOST_S = 120.0  #: without any answer, after which following ends
MAX_NODES = 10_000
#: Longest that a stopped job may take to end its actors; Ray would kill its driver after 3 s.
STOP_S = 60
ENTRYPOINT = f"exec python -m actors.cli run {CONFIG}"  #: ``exec``: signals reach the driver, with no shell between
_T = TypeVar("_T")


def submit(config: Config, address: str) -> SubmittedJob:
    """Check ``config`` and start it on the cluster. Raises UserError, having sent nothing, where that cannot work."""
    check_work(config, PIPELINE, "job")
    url = address if "://" in address else f"http://{address}"
    client = connect(url)
    with _answering(url):
        check_nodes(plan(config, PIPELINE.phases(config)), cluster_nodes(url))
        with tempfile.TemporaryDirectory() as directory:
            pack(config, Path(directory))
            name = f"rlaif-{Path(config.run_dir).name}-{secrets.token_hex(4)}"
            environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}
            client.submit_job(
                entrypoint=ENTRYPOINT,
                submission_id=name,
                runtime_env={"working_dir": directory, "env_vars": environment},
            )
    return SubmittedJob(client, url, name)


# ------------------------------------------------------------------------------------------------- the cluster
def connect(url: str) -> JobSubmissionClient:
    """A client of the Jobs API at ``url``. Raises UserError when there is none, or it refuses the token."""
    _knock(url)
    os.environ["RAY_API_SERVER_ADDRESS"] = url  # otherwise RAY_ADDRESS would win
    for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _answering(url):
        return JobSubmissionClient(url)


def cluster_nodes(url: str) -> list[dict[str, float]]:
    """The resources of each living node, by Ray's names."""
    states = list_nodes(address=url, limit=MAX_NODES, timeout=int(ANSWER_TIMEOUT_S))
    # Ray's own filter fails once a node was lost.
    return [node.resources_total for node in states if node.state == "ALIVE"]


def _knock(url: str) -> None:
    """Find out within seconds whether a server listens; Ray's client would wait minutes where packets are dropped."""
    try:
        if not url.isprintable():  # no variable of the environment holds every character
            raise ValueError(url)
        parts = urlsplit(url)
        usual_port = {"http": 80, "https": 443}[parts.scheme]
        address = parts.hostname or "", parts.port or usual_port
        socket.create_connection(address, timeout=CONNECT_TIMEOUT_S).close()
    except (KeyError, ValueError):
        raise UserError(f"--address {url}: not an address; give the Jobs API's, such as http://HEAD:8265") from None
    except OSError as error:
        raise UserError(f"--address {url}: connection failed ({error}); give the Jobs API, port 8265") from None


@contextlib.contextmanager
def _answering(url: str) -> Iterator[None]:
    """Turn the many errors of Ray's client into one line."""
    try:
        yield
    except AuthenticationError as error:
        raise UserError(f"--address {url}: {_token_problem(error)}") from None
    except (requests.RequestException, ConnectionError, RuntimeError, RayStateApiException) as error:
        raise UserError(f"--address {url}: the server there does not respond like a Ray cluster: {error}") from None


def _token_problem(error: AuthenticationError) -> str:
    places = "RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token"
    if "Authentication failed" in error.message:
        return f"the cluster refuses this token; put its own in {places}"
    return f"the cluster requires a token; set RAY_AUTH_MODE=token, and put the token in {places}"


# ----------------------------------------------------------------------------------------------------- the job
class SubmittedJob:
    """A job that was sent to the cluster."""

    def __init__(self, client: JobSubmissionClient, url: str, name: str) -> None:
        self.name = name
        self._client = client
        self._url = url

    def follow(self, show: Callable[[str], None]) -> int:
        """Show the log as it grows until the job ends; returns the exit code of its ``rlaif run``.

        Raises Interrupted when the job was stopped, or Ctrl-C ends the following (the job continues); RunError when the
        cluster has not answered for two minutes.
        """
        try:
            details = asyncio.run(self._follow(show))
        except KeyboardInterrupt:
            raise Interrupted(f"the job goes on. {self.hints}") from None
        return self._exit_code(details)

    @property
    def hints(self) -> str:
        """The commands that follow it and stop it."""
        here = f"{self.name} --address {self._url}"
        return f"Follow it: ray job logs --follow {here}; stop it: ray job stop {here}"

    async def _follow(self, show: Callable[[str], None]) -> JobDetails:
        shown, heard = 0, time.monotonic()
        while True:
            try:
                shown = await self._show_from(shown, show)
                details = await self._ask(self._client.get_job_info, self.name)
                heard = time.monotonic()
                if details.status.is_terminal():
                    await self._show_from(shown, show)
                    return details
            except (OSError, RuntimeError, aiohttp.ClientError, requests.RequestException, WaitTimeoutError) as error:
                if time.monotonic() - heard > LOST_S:
                    raise RunError(f"{self._url} has not answered for {LOST_S:g} s: {error}. {self.hints}") from error
            await asyncio.sleep(1.0)

    async def _show_from(self, shown: int, show: Callable[[str], None]) -> int:
        """Show the log after its first ``shown`` characters, until it ends or is silent for a while."""
        read = 0
        async with contextlib.aclosing(self._client.tail_job_logs(self.name)) as log:
            while (text := await _next(log)) is not None:
                if read + len(text) > shown:
                    show(text[max(0, shown - read) :])
                read += len(text)
                shown = max(shown, read)
        return shown

    async def _ask(self, question: Callable[..., _T], *arguments: Any) -> _T:
        return await within(ANSWER_TIMEOUT_S, asyncio.to_thread(question, *arguments), f"an answer of {self._url}")

    def _exit_code(self, details: JobDetails) -> int:
        if details.status == JobStatus.STOPPED or details.driver_exit_code == 130:
            raise Interrupted(f"{self.name} was stopped; submit it again to resume")
        if details.driver_exit_code is None or not 0 <= details.driver_exit_code < 128:
            reason = (details.message or "no reason given").partition(", last available logs")[0]  # they were shown
            raise RunError(f"{self.name} {details.status.value.lower()}: {reason}")
        return details.driver_exit_code


async def _next(log: Any) -> str | None:
    """The next piece of the log; None at its end, or when it has been silent for a while."""
    try:
        return await asyncio.wait_for(anext(log, None), SILENCE_S)
    except TimeoutError:
        return None
