"""A whole reinforcement stage against TRL's RLOO: completions per second, for ``benchmarks.training``.

Ours is the stage ``reinforce`` as run by ``rlaif stage``: a vLLM generator and a vLLM scorer in Ray actors, the
DeepSpeed learner under Ray Train, every weight sync verified, every rollout journalled. TRL's is ``RLOOTrainer`` in one
process, without gradient checkpointing or logging. Each side runs with the fastest of several settings, found in a
first round. For ours, these vary the micro-batch size and whether rollouts are on-policy or one batch stale; for TRL,
the micro-batch size, the number of completions generated at once, and the way of generating them, including its vLLM
mode and continuous batching. A setting that fails or takes longer than ``TIMEOUT_S`` is listed in the details with the
cause.

Both sides have the same model, a reward model of the same size, the same prompts in groups of two, one optimizer step
for each batch of 128 completions, float32, the same number of threads, and exactly 48 new tokens. The last needs no
setting: the model's own head gives EOS a logit so low that neither side ever samples it.

Rates are wall-clock rates of the whole system: generation, scoring, learning, weight sync. The clock runs from the end
of the first batch (of the first generation, where TRL generates several batches at once) to the end of the last.
Learner tokens are those of the prompts and answers that were learned from, over the same time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

BATCH_SIZE, GROUP_SIZE, NEW_TOKENS = 128, 2, 48
BATCHES = 8  #: a multiple of every number of batches that TRL may generate at once
MAX_PROMPT_TOKENS = 128
LEARNING_RATE = 1e-5
KL_COEFFICIENT = 0.05
LEARNED = "reinforce/response"  #: prefix of the metrics of a learned batch
TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The files that both sides learn from, and the number of threads that each may use."""

    model: str
    preference_model: str
    prompts: str  #: JSON lines, one ``prompt`` each
    held_out: str  #: likewise; no prompt of the evaluation is trained on
    prompt_tokens: float  #: mean length of a prompt as the model reads it
    threads: int


Settings = Mapping[str, Any]

CANDIDATES: Mapping[str, Sequence[Settings]] = {
    "ours": (
        {"micro_batch_tokens": 2048, "max_staleness": 0},
        {"micro_batch_tokens": 1024, "max_staleness": 0},
        {"micro_batch_tokens": 2048, "max_staleness": 1},
        {"micro_batch_tokens": 1024, "max_staleness": 1},
    ),
    "trl": (
        *({"per_device": size, "generated": BATCH_SIZE, "engine": "transformers"} for size in (16, 32, 64)),
        *({"per_device": 32, "generated": times * BATCH_SIZE, "engine": "transformers"} for times in (2, 4)),
        {"per_device": 32, "generated": BATCH_SIZE, "engine": "vllm"},
        {"per_device": 32, "generated": BATCH_SIZE, "engine": "continuous"},
    ),
}
#: TRL's ways of generating.
TRL_ENGINES: Mapping[str, Settings] = {
    "transformers": {},
    "vllm": {"use_vllm": True, "vllm_gpu_memory_utilization": 0.2, "vllm_max_model_length": 256},
    "continuous": {"use_transformers_continuous_batching": True},
}
TRL_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One reinforcement stage: completions and learner tokens per second of wall clock."""

    completions_per_s: float
    learner_tokens_per_s: float


def question(text: str) -> str:
    return f"\n\nHuman: {text}\n\nAssistant:"


# --------------------------------------------------------------------------------------------------- the workload
def make_workload(data: Path, model: str, directory: Path, threads: int) -> Workload:
    """A copy of ``model`` that never samples EOS, a reward model of the same size, and the data's first questions."""
    tokenizer = _endless(model, directory / "policy")
    _scorer(directory)
    lengths = _write_prompts(data, tokenizer, directory / "prompts.jsonl")
    (directory / "held_out.jsonl").write_text('{"prompt": "Held out?"}\n')
    return Workload(
        model=str(directory / "policy"),
        preference_model=str(directory / "scorer"),
        prompts=str(directory / "prompts.jsonl"),
        held_out=str(directory / "held_out.jsonl"),
        prompt_tokens=statistics.mean(lengths),
        threads=threads,
    )


def _endless(model: str, path: Path) -> Any:
    """Save ``model`` with one hidden dimension that all tokens share and that its head reads as "not EOS"."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    rows = network.get_input_embeddings().weight  # tied: the head uses them, too
    with torch.no_grad():
        rows[:, 0] = 0.2
        rows[[tokenizer.eos_token_id, tokenizer.pad_token_id], 0] = -20.0
    network.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return tokenizer


def _scorer(directory: Path) -> None:
    from rlaif.jobs import Rank
    from rlaif.prompting.tokenization import load_tokenizer
    from rlaif.training.models import new_scorer
    from rlaif.training.saving import save_model

    tokenizer = load_tokenizer(str(directory / "policy"))
    scorer = new_scorer(str(directory / "policy"), "float32", tokenizer, seed=1).classifier
    save_model(scorer, tokenizer, str(directory / "scorer"), Rank())


def _write_prompts(data: Path, tokenizer: Any, path: Path) -> list[int]:
    """Write the first distinct human turns of ``data`` that are short enough; returns their lengths in tokens."""
    transcripts = [json.loads(line)["chosen"] for line in data.read_text().splitlines()]
    texts = dict.fromkeys(text.split("\n\nAssistant:")[0].removeprefix("\n\nHuman: ") for text in transcripts)
    lengths = {text: len(tokenizer.encode(question(text))) for text in texts}
    short = [text for text, length in lengths.items() if length <= MAX_PROMPT_TOKENS]
    num = BATCHES * BATCH_SIZE // GROUP_SIZE
    assert len(short) >= num, f"{data} has {len(short)} short questions; {num} are needed"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in short[:num]))
    return [lengths[text] for text in short[:num]]


# ----------------------------------------------------------------------------------------------------------- ours
def run_ours(algorithm: str, workload: Workload, directory: Path, settings: Settings) -> Trial:
    """Run the stage in a run directory in which everything before it is done; takes the rates from its metrics."""
    run_dir = directory / f"{algorithm}_{time.monotonic_ns()}"
    config = directory / f"{run_dir.name}.yaml"
    config.write_text(yaml.safe_dump(_config(algorithm, workload, run_dir, settings)))
    _prepare(config, workload)
    _run(["-m", "actors.cli", "stage", "reinforce", str(config)])
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    learned = [line for line in lines if f"{LEARNED}/length_mean" in line["metrics"]]
    ends = [line["time"] for line in learned]
    assert len(ends) == BATCHES, f"{len(ends)} batches were learned instead of {BATCHES}"
    lengths = {line["metrics"][f"{LEARNED}/length_mean"] for line in learned}
    assert lengths == {NEW_TOKENS}, f"our completions have {lengths} tokens"
    return _trial(ends, workload)


def _config(algorithm: str, workload: Workload, run_dir: Path, settings: Settings) -> dict[str, Any]:
    """On-policy, learner and engines take turns and each uses all threads; one batch stale, they share the threads."""
    threads = max(1, workload.threads // (1 + settings["max_staleness"]))
    engine = {"threads": threads, "max_length": 256, "max_in_flight": 256, "chunk_rows": 64}
    labeller = {"model": workload.preference_model}  # required by the configuration, but never started
    models = {"generator": {"model": workload.model}, "labeller": labeller, "scorer": {}}
    return {
        "run_dir": str(run_dir),
        "sampling": {"temperature": 1.0, "max_tokens": NEW_TOKENS},
        "data": {"red_team": workload.prompts, "helpful": workload.prompts, "helpful_pairs": None, "votes": None},
        "evaluation": {"red_team": workload.held_out, "helpful": workload.held_out},
        **{role: engine | model for role, model in models.items()},
        "supervision": {"base_model": workload.model, "max_length": 256},
        "preference_model": {"base_model": workload.model, "max_length": 256},
        "policy_trainer": {"threads": threads, "micro_batch_tokens": settings["micro_batch_tokens"]},
        "reinforcement": {
            "algorithm": algorithm,
            "batches": BATCHES,
            "batch_size": BATCH_SIZE,
            "minibatch_size": BATCH_SIZE,
            "group_size": GROUP_SIZE,
            "helpful_fraction": 0.0,
            "max_staleness": settings["max_staleness"],
            "learning_rate": LEARNING_RATE,
            "kl": {"coefficient": KL_COEFFICIENT},
        },
        "resources": {"cpus": 4},
    }


def _prepare(config: Path, workload: Workload) -> None:
    """Make a run directory in which ``reinforce`` comes next."""
    from rlaif.config.files import load_config
    from rlaif.engines.models import model_hash
    from rlaif.stages.pipeline import STAGES, story
    from rlaif.storage.run_dir import RunDir

    settings = load_config(config, ())
    run_dir = RunDir(Path(settings.run_dir), settings)
    shutil.copytree(workload.model, run_dir.model("sl_cai"))
    shutil.copytree(workload.preference_model, run_dir.model("preference_model"))
    names = story(settings)
    for name in names[: names.index("reinforce")]:
        made = [model for model in STAGES[name].makes if run_dir.model(model).is_dir()]
        with run_dir.time_stage(name, lambda made=made: {model: model_hash(run_dir.model(model)) for model in made}):
            pass
    run_dir.close()


def _run(arguments: Sequence[str]) -> None:
    """Run Python with ``arguments`` in a process of its own. Raises RuntimeError with its error when it fails."""
    environment = {**os.environ, **TRL_ENVIRONMENT}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise RuntimeError(f"took longer than {TIMEOUT_S:.0f} s") from None
        log.seek(0)
        if code:
            raise RuntimeError(f"exit {code}: {last_words(log.read())}")


def last_words(log: str) -> str:
    """The error: the CLI's own error line, or the end of the log with its traceback."""
    errors = [line for line in log.splitlines() if line.startswith("error: ")]
    return errors[-1] if errors else log[-500:]


def _trial(ends: Sequence[float], workload: Workload, warm: int = 1) -> Trial:
    """Rates from the times at which batches ended; the first ``warm`` batches are not counted."""
    completions = (len(ends) - warm) * BATCH_SIZE / (ends[-1] - ends[warm - 1])
    return Trial(
        completions_per_s=completions,
        learner_tokens_per_s=completions * (workload.prompt_tokens + NEW_TOKENS),
    )


# ------------------------------------------------------------------------------------------------------------ TRL
def run_trl(workload: Workload, directory: Path, settings: Settings) -> Trial:
    """``train_trl`` in a process of its own."""
    request, answer = directory / "trl_request.json", directory / "trl_answer.json"
    request.write_text(json.dumps({"workload": asdict(workload), "settings": settings}))
    _run(["-m", "benchmarks.reinforcement", str(request), str(answer)])
    return Trial(**json.loads(answer.read_text()))


def train_trl(workload: Workload, directory: str, settings: Settings) -> Trial:
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl import RLOOTrainer

    torch.set_num_threads(workload.threads)
    ends: list[float] = []

    class Ends(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.time())

    texts = [json.loads(line)["prompt"] for line in Path(workload.prompts).read_text().splitlines()]
    trainer = RLOOTrainer(
        AutoModelForCausalLM.from_pretrained(workload.model, dtype=torch.float32),
        AutoModelForSequenceClassification.from_pretrained(workload.preference_model, dtype=torch.float32),
        _trl_config(directory, settings),
        Dataset.from_list([{"prompt": question(text)} for text in texts]),
        processing_class=AutoTokenizer.from_pretrained(workload.model, padding_side="left"),
        callbacks=[Ends()],
    )
    trainer.train()
    last = trainer.state.log_history[-1]  # covers the whole training, as nothing was logged before
    lengths = {last[f"completions/{which}_length"] for which in ("min", "max")}
    assert lengths == {NEW_TOKENS}, f"TRL's completions have {lengths} tokens"
    return _trial(ends, workload, warm=settings["generated"] // BATCH_SIZE)


def _trl_config(directory: str, settings: Settings) -> Any:
    from trl import RLOOConfig

    return RLOOConfig(
        output_dir=directory,
        per_device_train_batch_size=settings["per_device"],
        gradient_accumulation_steps=BATCH_SIZE // settings["per_device"],
        generation_batch_size=settings["generated"],
        num_generations=GROUP_SIZE,
        max_completion_length=NEW_TOKENS,
        max_steps=BATCHES,
        temperature=1.0,
        beta=KL_COEFFICIENT,
        learning_rate=LEARNING_RATE,
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=0,
        **TRL_ENGINES[settings["engine"]],
    )


# ---------------------------------------------------------------------------------------------------- the contest
def contest(data: Path, model: str, directory: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Choose each side's fastest settings, then alternate; returns the medians by figure, and all trials."""
    workload = make_workload(data, model, directory, threads)
    sides: dict[str, Callable[[Settings], Trial]] = {
        "ours": lambda settings: run_ours("rloo", workload, directory, settings),
        "trl": lambda settings: run_trl(workload, directory, settings),
    }
    candidates = {side: [_attempt(run, settings) for settings in CANDIDATES[side]] for side, run in sides.items()}
    best = {
        side: max(attempts, key=lambda attempt: attempt.get("completions_per_s", 0.0))["settings"]
        for side, attempts in candidates.items()
    }
    trials: dict[str, list[Trial]] = {"rloo": [], "ppo": [], "trl.rloo": []}
    for _ in range(rounds):
        trials["trl.rloo"].append(sides["trl"](best["trl"]))
        trials["rloo"].append(sides["ours"](best["ours"]))
        trials["ppo"].append(run_ours("ppo", workload, directory, best["ours"]))
    return {
        **{
            f"{name}_{figure}": statistics.median(getattr(trial, figure) for trial in repeats)
            for figure in ("completions_per_s", "learner_tokens_per_s")
            for name, repeats in trials.items()
        },
        "reinforcement": {
            "settings": best,
            "prompt_tokens": workload.prompt_tokens,
            "trials": {name: [asdict(trial) for trial in repeats] for name, repeats in trials.items()},
            "tried": candidates,
        },
    }


def _attempt(run: Callable[[Settings], Trial], settings: Settings) -> dict[str, Any]:
    """One candidate's rate, or the cause of its failure."""
    try:
        return {"settings": settings, **asdict(run(settings))}
    except RuntimeError as error:
        return {"settings": settings, "failed": str(error)}


def main() -> None:
    """TRL's process: reads a request from one file, writes the answer to another."""
    request, answer = map(Path, sys.argv[1:])
    values = json.loads(request.read_text())
    trial = train_trl(Workload(**values["workload"]), f"{answer}.output", values["settings"])
    answer.write_text(json.dumps(asdict(trial)))


if __name__ == "__main__":
    main()
