"""Does feedback on the policy's own answers help? RL with a refreshed preference model (PM) against a frozen one.

    python -m benchmarks.refresh --json benchmarks/results/refresh.json --plot refresh.svg

For each seed, the miniature's quickstart runs up to the PM's fit. Two runs branch off there, with the same prompts and
the same number of rollouts: *sequential* (the quickstart: on-policy, PM frozen) and *concurrent*
(``configs/concurrent.yaml``: rollouts one batch ahead, labels on fresh answers, and a PM that is refreshed and swapped
in meanwhile). The runs use ``--red-team`` of the miniature's 1,200 red-team prompts, hence as many labels before the
first fit: with all 1,200 the first fit already knows what the labeller knows, and fresh labels have nothing to add (see
docs/decisions.md).

How to read it: ``runs`` has each run's rates of harm and refusal on held-out red-team prompts, by the miniature's truth
and with 95% intervals, and of help on benign prompts. ``accuracy`` is about PMs on the current policy's answers, batch
by batch: among all pairs of red-team answers in a batch of which one is truly better, the share whose better answer
scores higher (RL compares rewards across prompts, so the two prompts may differ). ``by_seed`` has its means over the
batches that a refreshed PM scored: *refreshed*, the PM that scored the concurrent run; *frozen*, the first fit on the
same answers; *without_refresh*, the first fit on the answers of the sequential run, whose policy learned from it.
``gain`` is refreshed minus each of the other two, with its 95% interval (Student's t over the seeds). ``fresh_pairs``
shows what refreshes can learn from: among the fresh pairs with a truly better answer, the share that the *labeller*
ranked right, and the share that each PM ranked right before the served one was trained on them; a PM can gain only
where the labeller is right more often. ``labels`` shows, for the first labels and for those of each refresh in turn,
how the judge behaved (flips, slot bias, order correlation), the share of pairs of which the truth prefers one answer
(``tells_apart``), and the share of those that the judge ranked ``right``. ``--from`` names finished run directories to
branch off from, one for each seed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq

from benchmarks.branches import BEFORE, branch
from benchmarks.intervals import paired_interval
from benchmarks.machine import publish
from rlaif.config.files import load_config
from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.data.prompts import read_prompts
from rlaif.evaluation import plots
from rlaif.evaluation.answers import true_class
from rlaif.labels.quality import measure
from rlaif.miniature.lexicon import load_lexicon
from rlaif.miniature.paths import miniature_paths
from rlaif.miniature.truth import Class, better
from rlaif.prompting.tokenization import load_tokenizer
from rlaif.records import Preference
from rlaif.stages.label import PREFERENCES
from rlaif.stages.reinforcement.preference_loops import REFRESH_PREFERENCES
from rlaif.stages.reinforcement.preference_versions import num_refreshes, version_for
from rlaif.storage.journal import Journal
from rlaif.tasks.sampling import ensure_eos
from rlaif.training.batches import pad_right

CONFIGS = Path(__file__).parents[1] / "configs"
#: Keeps every refreshed model: models are pruned only when a checkpoint is written.
KEEP_ALL = "reinforcement.checkpoint_every=1000000"
WINDOW = 5  #: batches averaged in one point of the plot
WAYS = {"sequential": "quickstart.yaml", "concurrent": "concurrent.yaml"}


def command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "actors.cli", *arguments], check=True)


def write_prompts(directory: Path, seed: int, num: int) -> Path:
    """The first ``num`` red-team prompts of the miniature of ``seed``."""
    config = load_config(CONFIGS / "quickstart.yaml", [f"miniature.seed={seed}"])
    every = miniature_paths(config, load_constitution(config.constitution), ("data.red_team",))[
        config.data.red_team.path
    ]
    path = directory / f"red_team-{seed}.jsonl"
    path.write_text("".join(every.read_text().splitlines(keepends=True)[:num]))
    return path


def base_run(directory: Path, seed: int, overrides: Sequence[str]) -> Path:
    """Run the quickstart up to the preference model; returns the run directory."""
    run_dir = directory / f"base-{seed}"  # with --keep it may exist already; then nothing is recomputed
    settings = (f"seed={seed}", f"miniature.seed={seed}", f"run_dir={run_dir}", *overrides)
    for stage in BEFORE:
        command("stage", stage, str(CONFIGS / "quickstart.yaml"), *settings)
    return run_dir


def run_way(base: Path, directory: Path, way: str, seed: int, overrides: Sequence[str]) -> Path:
    run_dir = directory / f"{way}-{seed}"
    settings = [f"seed={seed}", f"miniature.seed={seed}", f"run_dir={run_dir}", KEEP_ALL, *overrides]
    if not run_dir.exists():  # otherwise it is resumed, or already done
        branch(base, run_dir, load_config(CONFIGS / WAYS[way], settings))
    command("run", str(CONFIGS / WAYS[way]), *settings)
    return run_dir


def rates(run_dir: Path) -> dict[str, Any]:
    """How RL-CAI behaves, by the miniature's truth."""
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    red, benign = (evaluation["answers"][kind]["rl_cai"] for kind in ("red_team", "benign"))
    intervals = evaluation["intervals"]["answers"]["red_team"]["rl_cai"]
    return {
        "harmful": red["harmful"],
        "harmful_interval": intervals["harmful"],
        "refusal": red["refusal"],
        "refusal_interval": intervals["refusal"],
        "helpful": benign["helpful"],
        "malformed": max(red["malformed"], benign["malformed"]),
    }


def accuracies(run_dir: Path, config: Config) -> list[dict[str, float]]:
    """For each batch, how often the frozen model and the model that scored it rank its red-team answers right."""
    models = [Scorer(path) for path in model_paths(run_dir, config)]
    points = []
    for batch, judged in sorted(answers(run_dir, config).items()):
        version = version_for(config.preference_model.refresh, batch)
        right = {name: share_right(models[v], judged) for name, v in (("frozen", 0), ("served", version))}
        if not math.isnan(right["frozen"]):
            points.append({"batch": batch, "version": version, **right})
    return points


def answers(run_dir: Path, config: Config) -> dict[int, list[tuple[Class, list[int]]]]:
    """Batch -> its red-team answers, each as its true class and the token ids that were scored."""
    lexicon, requests = load_lexicon(config.miniature.lexicon), red_team_requests(config)
    tokenizer = load_tokenizer(run_dir / "models" / "preference_model")
    by_batch = defaultdict(list)
    for row in pq.read_table(run_dir / "rollouts" / "rollouts.parquet").to_pylist():
        if row["axis"] == "red_team":
            text = tokenizer.decode(row["response_ids"], skip_special_tokens=True).strip()
            kind = true_class(lexicon, "red_team", requests[row["source_row"]], text)
            ids = [*row["prompt_ids"], *ensure_eos(tuple(row["response_ids"]), tokenizer.eos_token_id)]
            if kind is not None:
                by_batch[int(row["id"].split("@")[1].split(".")[1])].append((kind, ids))
    return by_batch


def red_team_requests(config: Config) -> dict[int, str]:
    paths = miniature_paths(config, load_constitution(config.constitution), ("data.red_team",))
    path = str(paths.get(config.data.red_team.path, config.data.red_team.path))
    return {prompt.source_row: prompt.turns[-1].text for prompt in read_prompts(path, "red_team", print)}


def fresh_pairs(run_dir: Path, config: Config) -> dict[str, float]:
    """Among pairs labelled for refreshes, how many have a true preference, and how often each judge agrees with it."""
    winner_of = Winner(config)
    right: dict[str, list[bool]] = {"labeller": [], "frozen": [], "served": []}
    models = {version: Scorer(path) for version, path in enumerate(model_paths(run_dir, config))}
    eos = load_tokenizer(run_dir / "models" / "preference_model").eos_token_id
    for row in pq.read_table(run_dir / "preferences" / "refresh.parquet").to_pylist():
        version = int(row["id"].split("@refresh.")[1].split(".")[0])
        winner = winner_of(row["source_row"], row["answer_1"], row["answer_2"])
        if winner is None or row["prob"] is None:
            continue
        ids = [[*row["prompt_ids"], *ensure_eos(tuple(row[f"token_ids_{place}"]), eos)] for place in (1, 2)]
        right["labeller"].append((row["prob"] > 0.5) == (winner == 1))
        for name, model in (("frozen", models[0]), ("served", models[version - 1])):
            score_1, score_2 = model(ids)
            right[name].append((score_1 > score_2) == (winner == 1))
    return {"num_pairs": len(right["labeller"]), **{name: fmean(hits) for name, hits in right.items()}}


def labels(run_dir: Path, config: Config) -> list[dict[str, float | None]]:
    """For the first labels and each refresh's: how the judge behaved, and what the truth says about the pairs."""
    journal, winner_of, sets = Journal(run_dir / "journal.sqlite"), Winner(config), []
    refreshes = range(1, num_refreshes(config.reinforcement, config.preference_model.refresh) + 1)
    for kind, version in ((PREFERENCES, None), *((REFRESH_PREFERENCES, version) for version in refreshes)):
        records = journal.records(Preference, kind, version)
        valid = [(label, label.prob) for label in records if label.prob is not None]
        winners = [winner_of(label.source_row, label.answer_1, label.answer_2) for label, _ in valid]
        right = [(prob > 0.5) == (winner == 1) for (_, prob), winner in zip(valid, winners, strict=True) if winner]
        quality = measure(label for label, _ in valid).measures()
        judge = {name: quality[name].value for name in ("flip_rate", "slot_bias", "order_correlation")}
        sets.append({**judge, "tells_apart": len(right) / len(valid), "right": fmean(right) if right else None})
    return sets


class Winner:
    """Which of two answers to a red-team prompt is truly better: 1, 2, or None for neither."""

    def __init__(self, config: Config) -> None:
        self._lexicon, self._requests = load_lexicon(config.miniature.lexicon), red_team_requests(config)

    def __call__(self, source_row: int, *answers: str) -> int | None:
        request = self._requests[source_row]
        kind_1, kind_2 = (true_class(self._lexicon, "red_team", request, answer) for answer in answers)
        return better("red_team", kind_1, kind_2) if kind_1 and kind_2 else None


def model_paths(run_dir: Path, config: Config) -> list[Path]:
    """The preference model of each version; version 0 is the first fit."""
    last = num_refreshes(config.reinforcement, config.preference_model.refresh)
    refreshed = [run_dir / "checkpoints" / f"preference-{version:08d}" for version in range(1, last + 1)]
    return [run_dir / "models" / "preference_model", *refreshed]


class Scorer:
    """A preference model in this process."""

    def __init__(self, path: Path) -> None:
        from rlaif.training.models import load_scorer

        self._model = load_scorer(str(path), "float32").eval()

    def __call__(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        import torch

        ids = pad_right(sequences, pad_id=0)
        last = [row * ids.shape[1] + len(sequence) - 1 for row, sequence in enumerate(sequences)]
        with torch.inference_mode():
            return self._model(torch.from_numpy(ids), torch.tensor(last)).tolist()


def share_right(score: Scorer, judged: Sequence[tuple[Class, list[int]]]) -> float:
    """Among all pairs of answers with a true preference, the share whose better one scores higher; NaN if none."""
    scores, right = score([ids for _, ids in judged]), []
    for (kind_1, score_1), (kind_2, score_2) in combinations(zip([k for k, _ in judged], scores, strict=True), 2):
        winner = better("red_team", kind_1, kind_2)
        if winner is not None:
            right.append((score_1 > score_2) == (winner == 1))
    return sum(right) / len(right) if right else math.nan


Points = Sequence[Mapping[str, float]]  #: of one run, from ``accuracies``


def summary(concurrent: Sequence[Points], sequential: Sequence[Points]) -> dict[str, Any]:
    """For each seed, mean accuracies over the batches that a refreshed model scored; and the paired differences."""
    means = []
    for place, points in enumerate(concurrent):
        after = [point for point in points if point["version"]]
        mean = {"refreshed": fmean(p["served"] for p in after), "frozen": fmean(p["frozen"] for p in after)}
        if sequential:
            first = min(point["batch"] for point in after)
            mean["without_refresh"] = fmean(p["frozen"] for p in sequential[place] if p["batch"] >= first)
        means.append(mean)
    gain = {
        f"over_{name}": paired_interval([mean["refreshed"] - mean[name] for mean in means])
        for name in ("frozen", "without_refresh")
        if name in means[0]
    }
    return {"by_seed": means, "gain": gain}


def figure(concurrent: Sequence[Points], sequential: Sequence[Points]) -> str:
    """Accuracies over the batches, averaged over the seeds and over windows of five batches, as an SVG."""
    lines = {
        "refreshed": windows(concurrent, "served"),
        "frozen, on the same answers": windows(concurrent, "frozen"),
        "frozen, on its own policy's answers": windows(sequential, "frozen"),
    }
    title = "Preference model: accuracy on the current policy's answers"
    return plots.curves(title, {name: line for name, line in lines.items() if line}, "batches learned")


def windows(seeds: Sequence[Points], name: str) -> list[tuple[float, float]]:
    """(mean batch, mean accuracy) of each window."""
    batches = sorted({int(point["batch"]) for points in seeds for point in points})
    line = []
    for first in range(0, len(batches), WINDOW):
        window = batches[first : first + WINDOW]
        line.append((fmean(window), fmean(p[name] for points in seeds for p in points if p["batch"] in window)))
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--from", type=Path, nargs="+", dest="bases", help="finished quickstart runs, one for each seed"
    )
    parser.add_argument(
        "--red-team", type=int, default=200, help="red-team prompts in each run, unless --from is given"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--keep", type=Path, help="a directory to use and keep")
    parser.add_argument("overrides", nargs="*", help="dotted overrides for both ways")
    arguments = parser.parse_args()
    runs: dict[str, dict[int, Any]] = {way: {} for way in arguments.ways}
    points: dict[str, list[Points]] = {way: [] for way in WAYS}
    fresh, label_sets = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        for place, seed in enumerate(arguments.seeds):
            overrides = arguments.overrides
            if arguments.bases:
                base = arguments.bases[place]
            else:
                overrides = [f"data.red_team={write_prompts(directory, seed, arguments.red_team)}", *overrides]
                base = base_run(directory, seed, overrides)
            for way in arguments.ways:
                run_dir = run_way(base, directory, way, seed, overrides)
                runs[way][seed] = rates(run_dir)
                config = load_config(run_dir / "config.yaml")
                points[way].append(accuracies(run_dir, config))
                print(way, seed, runs[way][seed], points[way][-1], flush=True)
                if way == "concurrent":
                    fresh[seed], label_sets[seed] = fresh_pairs(run_dir, config), labels(run_dir, config)
                    print(fresh[seed], label_sets[seed], flush=True)
    accuracy = None
    if points["concurrent"]:
        gains = summary(points["concurrent"], points["sequential"])
        accuracy = {**gains, "fresh_pairs": fresh, "labels": label_sets, "batches": points}
    red_team = None if arguments.bases else arguments.red_team
    publish({"red_team": red_team, "runs": runs, "accuracy": accuracy}, arguments.json)
    if arguments.plot and points["concurrent"]:
        arguments.plot.write_text(figure(points["concurrent"], points["sequential"]) + "\n")


if __name__ == "__main__":
    main()
