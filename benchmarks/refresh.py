"""Does feedback on the policy's own answers help? RL with a refreshed preference model (PM) beside a frozen one.

    python -m benchmarks.refresh --json benchmarks/results/refresh.json --plot refresh.svg

For each seed the miniature's quickstart is run up to the PM's fit; from there two runs branch off, with the same
prompts and equally many rollouts: *sequential* (the quickstart: in step, PM frozen) and *concurrent*
(``configs/concurrent.yaml``: rollouts one batch ahead, labels on fresh answers, PM refreshed and swapped in meanwhile).

How to read it: ``runs`` has each run's truth-measured harm and refusal on held-out red-team prompts with 95% intervals
and helpfulness on benign ones; ``accuracy`` what the frozen PM and the PM then being served say of the policy's answers
at each refresh: the share of pairs with a true preference that each ranks right. Neither model has seen those pairs:
the served one learns from them afterwards. Fewer and fewer pairs have a true preference as the policy improves, so
``num_pairs`` stands beside. ``--from`` names finished run directories to branch off, one for each seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.branches import BEFORE, branch
from benchmarks.machine import publish
from rlaif.config import Config
from rlaif.config_file import load_config
from rlaif.data.tokenization import load_tokenizer
from rlaif.data.training_sets import PairBuilder
from rlaif.evaluation import plots
from rlaif.evaluation.labels import judge_labels
from rlaif.intervals import wilson
from rlaif.journal import Journal
from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import Preference
from rlaif.stages.lag import num_refreshes, starts_at
from rlaif.training.jobs import PreferenceJob, Rank

CONFIGS = Path(__file__).parents[1] / "configs"
#: Every refreshed model is kept: they are pruned when a checkpoint is written.
KEEP_ALL = "reinforcement.checkpoint_every=1000000"
WAYS = {"sequential": "quickstart.yaml", "concurrent": "concurrent.yaml"}


def command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "actors.cli", *arguments], check=True)


def base_run(directory: Path, seed: int) -> Path:
    """The quickstart up to the preference model."""
    run_dir = directory / f"base-{seed}"
    settings = (f"seed={seed}", f"miniature.seed={seed}", f"run_dir={run_dir}")
    for stage in BEFORE:
        command("stage", stage, str(CONFIGS / "quickstart.yaml"), *settings)
    return run_dir


def run_way(base: Path, directory: Path, way: str, seed: int, overrides: Sequence[str]) -> Path:
    run_dir = directory / f"{way}-{seed}"
    settings = [f"seed={seed}", f"miniature.seed={seed}", f"run_dir={run_dir}", KEEP_ALL, *overrides]
    branch(base, run_dir, load_config(CONFIGS / WAYS[way], settings))
    command("run", str(CONFIGS / WAYS[way]), *settings)
    return run_dir


def rates(run_dir: Path) -> dict[str, Any]:
    """What RL-CAI does, by the truth."""
    found = json.loads((run_dir / "evaluation.json").read_text())
    red, benign = (found["answers"][kind]["rl_cai"] for kind in ("red_team", "benign"))
    intervals = found["intervals"]["answers"]["red_team"]["rl_cai"]
    return {
        "harmful": red["harmful"],
        "harmful_interval": intervals["harmful"],
        "refusal": red["refusal"],
        "refusal_interval": intervals["refusal"],
        "helpful": benign["helpful"],
        "malformed": max(red["malformed"], benign["malformed"]),
    }


def accuracies(run_dir: Path, config: Config) -> list[dict[str, float]]:
    """At each refresh, how often the frozen and the served model rank the policy's fresh pairs right."""
    refresh, found = config.preference_model.refresh, []
    journal = Journal(run_dir / "journal.sqlite")
    for version in range(1, num_refreshes(config.reinforcement, refresh) + 1):
        labels = list(journal.records(Preference, f"refresh_preferences/{version:08d}"))
        judged = list(judge_labels(labels, load_lexicon(config.miniature.lexicon)))
        truth = {one.id: float(one.truly_better == 1) for one in judged}
        frozen = run_dir / "models" / "preference_model"
        served = run_dir / "checkpoints" / f"preference-{version - 1:08d}" if version > 1 else frozen
        right = {
            name: num_right(path, labels, truth, config)
            for name, path in (("frozen", frozen), ("served", served), ("labels", None))
        }
        found.append({"policy_version": starts_at(refresh, version), "num_pairs": len(truth), **right})
    journal.close()
    return found


def num_right(model: Path | None, labels: list[Preference], truth: dict[str, float], config: Config) -> float:
    """Pairs that a preference model ranks as the truth does; without one, that the labels do. Ties count half."""
    if model is None:
        probs = {label.id: label.prob for label in labels if label.prob is not None}
        return sum(0.5 if probs[i] == 0.5 else float((probs[i] > 0.5) == bool(t)) for i, t in truth.items())
    from rlaif.training.deepspeed import start_rank
    from rlaif.training.models import load_scorer
    from rlaif.training.preference import PairFit, pair_engine

    builder = PairBuilder(
        tokenizer=load_tokenizer(model),
        dialogue_format=config.dialogue_format,
        settings=config.preference_model,
        seed=config.seed,
    )
    rows = [dict(row) for row in builder.from_labels(labels, truth)]
    settings, trainer = config.preference_model, config.preference_trainer
    job = PreferenceJob(
        base_model="", pretraining=None, fit="", heldout=None, output="", settings=settings, trainer=trainer, seed=0
    )
    start_rank(Rank(), trainer)
    engine = pair_engine(load_scorer(str(model), "float32"), job, settings.fit, Rank())
    scored = PairFit("fit", job, Rank(), engine).score(rows)
    return sum(float((pair.score_1 > pair.score_2) == (pair.prob > 0.5)) for pair in scored)


def pooled(seeds: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, Any]]:
    """Accuracies over all seeds by policy version, with Wilson intervals."""
    made = []
    for points in zip(*seeds, strict=True):
        num = sum(point["num_pairs"] for point in points)
        line: dict[str, Any] = {"policy_version": points[0]["policy_version"], "num_pairs": num}
        for name in ("frozen", "served", "labels"):
            right = sum(point[name] for point in points)
            line[name], line[f"{name}_interval"] = right / max(1, num), wilson(right, num)
        made.append(line)
    return made


def figure(found: Sequence[dict[str, Any]]) -> str:
    names = {"frozen": "frozen", "served": "refreshed", "labels": "the labels themselves"}
    lines = {shown: [(point["policy_version"], point[name]) for point in found] for name, shown in names.items()}
    return plots.curves("Preference model: accuracy on the current policy's answers", lines, "batches learned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--from", type=Path, nargs="+", dest="bases", help="finished quickstart runs, one for each seed"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--keep", type=Path, help="a directory to use and keep")
    parser.add_argument("overrides", nargs="*", help="dotted overrides of both ways")
    arguments = parser.parse_args()
    runs: dict[str, dict[int, Any]] = {way: {} for way in arguments.ways}
    points = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        for place, seed in enumerate(arguments.seeds):
            base = arguments.bases[place] if arguments.bases else base_run(directory, seed)
            for way in arguments.ways:
                run_dir = run_way(base, directory, way, seed, arguments.overrides)
                runs[way][seed] = rates(run_dir)
                print(way, seed, runs[way][seed], flush=True)
            if "concurrent" in arguments.ways:
                points.append(accuracies(run_dir, load_config(run_dir / "config.yaml")))
                print(points[-1], flush=True)
    accuracy = pooled(points) if points else []
    publish({"runs": runs, "accuracy": accuracy, "accuracy_by_seed": points}, arguments.json)
    if arguments.plot and accuracy:
        arguments.plot.write_text(figure(accuracy) + "\n")


if __name__ == "__main__":
    main()
