"""Make the miniature: data files and tiny models from a lexicon, once, in a cache.

``python -m rlaif.miniature.make`` makes the default one. The cache holds one directory for each content hash; it is
written under another name and renamed when complete, so that two processes that race both end up with a complete one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif.config.files import expand_home
from rlaif.config.schema import Miniature
from rlaif.constitution.principles import Constitution, load_constitution
from rlaif.errors import ConfigError, RunError, WaitTimeoutError
from rlaif.miniature.lexicon import Lexicon, load_lexicon

CODE_VERSION = "5"  #: raise it whenever what is written changes
TRAINING_TIMEOUT_S = 1200.0
MODELS = ("helpful_only", "base", "feedback")
FILES = ("red_team", "helpful", "eval_red_team", "eval_helpful", "helpful_pairs", "votes")


@dataclass(frozen=True, kw_only=True)
class MiniaturePaths:
    """Where one miniature's files and models are."""

    root: Path

    def path(self, name: str) -> Path:
        """The file or model directory that the configuration calls ``miniature:NAME``."""
        if name in MODELS:
            return self.root / name
        if name in FILES:
            return self.root / f"{name}.jsonl"
        raise ConfigError(f"miniature:{name}: no such name; there are {', '.join((*MODELS, *FILES))}")


def content_hash(lexicon: Lexicon, constitution: Constitution, seed: int, slot_bias: float) -> str:
    """The name of a miniature: 16 hex digits, hashed from everything that its content depends on."""
    parts = (CODE_VERSION, lexicon.model_dump_json(), constitution.hash, seed, float(slot_bias))
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


def make(
    settings: Miniature, constitution: Constitution, progress: Callable[[str], None] = lambda line: None
) -> MiniaturePaths:
    """The miniature of these settings, from the cache or made now (in about a minute and a half on two cores).

    A slot bias other than 0 is planted in a copy of the unbiased miniature, without training again.
    Raises ConfigError when the lexicon or the constitution cannot be used, RunError when training fails.
    """
    lexicon = load_lexicon(settings.lexicon)
    _usable(constitution)
    root = _root(settings, lexicon, constitution)
    if not root.is_dir():
        root.parent.mkdir(parents=True, exist_ok=True)
        if settings.slot_bias == 0:
            _atomically(root, lambda directory: _train_world(directory, lexicon, constitution, settings.seed, progress))
        else:
            unbiased = make(settings.model_copy(update={"slot_bias": 0.0}), constitution, progress)
            _atomically(root, lambda directory: _plant_bias(directory, unbiased, settings.slot_bias))
    return MiniaturePaths(root=root)


def is_cached(settings: Miniature, constitution: Constitution) -> bool:
    """Whether the cache holds this miniature. Raises ConfigError as ``make`` does."""
    lexicon = load_lexicon(settings.lexicon)
    _usable(constitution)
    return _root(settings, lexicon, constitution).is_dir()


def _root(settings: Miniature, lexicon: Lexicon, constitution: Constitution) -> Path:
    name = content_hash(lexicon, constitution, settings.seed, settings.slot_bias)
    return expand_home(settings.cache_dir) / name


def _usable(constitution: Constitution) -> None:
    if not constitution.for_revision or not constitution.for_comparison:
        raise ConfigError(
            f"constitution {constitution.name}: the miniature's models learn from both kinds of principles; "
            "give at least one with critique_request and revision_request and one with comparison"
        )


def _atomically(root: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary directory, then rename it to ``root``; in a race, one process discards its own."""
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as temporary:
        unfinished = Path(temporary) / "miniature"
        unfinished.mkdir()
        write(unfinished)
        try:
            unfinished.rename(root)
        except OSError:
            if not root.is_dir():
                raise


def _plant_bias(directory: Path, unbiased: MiniaturePaths, bias: float) -> None:
    from rlaif.miniature.slot_bias import plant_slot_bias

    shutil.copytree(unbiased.root, directory, dirs_exist_ok=True)
    questions = json.loads((directory / "questions.json").read_text(encoding="utf-8"))
    plant_slot_bias(directory / "feedback", questions, bias)


# ---------------------------------------------------------------------------------------------------- training
def _train_world(
    directory: Path, lexicon: Lexicon, constitution: Constitution, seed: int, progress: Callable[[str], None]
) -> None:
    """Write the world, then train the policy's models and the feedback model in parallel, on one core each."""
    from rlaif.miniature.recipes import write_world

    started = time.monotonic()
    write_world(directory, lexicon, constitution, seed)
    runs = [_start(directory, part) for part in ("policy", "feedback")]
    try:
        while any(run.poll() is None for run in runs):
            _check(runs, directory)
            elapsed = time.monotonic() - started
            if elapsed > TRAINING_TIMEOUT_S:
                raise WaitTimeoutError(f"the miniature's models were not trained within {TRAINING_TIMEOUT_S:.0f} s")
            progress(f"miniature: training tiny models, {elapsed:.0f} s (about 90 s, once) {_last_lines(directory)}")
            time.sleep(1)
        _check(runs, directory)
    finally:
        for run in runs:
            run.kill()
            run.wait()
    progress(f"miniature: made in {time.monotonic() - started:.0f} s")


def _start(directory: Path, part: str) -> subprocess.Popen[bytes]:
    package_root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": package_root, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "rlaif.miniature.recipes", part, str(directory)]
    with (directory / f"{part}.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _last_lines(directory: Path) -> str:
    lines = [(directory / f"{part}.log").read_text().splitlines()[-1:] for part in ("policy", "feedback")]
    return "; ".join(line[0] for line in lines if line)


def _check(runs: Sequence[subprocess.Popen[bytes]], directory: Path) -> None:
    for run, part in zip(runs, ("policy", "feedback"), strict=True):
        if run.returncode not in (None, 0):
            log = (directory / f"{part}.log").read_text()[-2000:]
            raise RunError(f"training the miniature's {part} models failed (exit {run.returncode}):\n{log}")


def _main() -> None:
    """Make the miniature named on the command line; prints one line of progress and then its directory."""
    parser = argparse.ArgumentParser(prog="python -m rlaif.miniature.make", description=_main.__doc__)
    parser.add_argument("--lexicon", default=None, help="a YAML lexicon; none: the shipped one")
    parser.add_argument("--constitution", default="sixteen_principles")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slot-bias", type=float, default=Miniature().slot_bias)
    parser.add_argument("--cache-dir", default=Miniature().cache_dir)
    given = vars(parser.parse_args())
    constitution = load_constitution(given.pop("constitution"))
    paths = make(Miniature(**given), constitution, lambda line: print(f"\r{line}\x1b[K", end="", flush=True))
    print(f"\n{paths.root}")


if __name__ == "__main__":
    _main()
