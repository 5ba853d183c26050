"""Load a run's models as any user would, with stock transformers and vLLM, and compare them with the run's records.

    python tests/cluster/check_saved_models.py RUN_DIR

The system's own numbers are the preference scores that its engines recorded in rollouts.parquet (all of them), the
log-probabilities recorded there (those of the first batch, which models/sl_cai itself sampled), and the answers that
models/rl_cai gave in evaluation. Exits 1 if anything differs by more than 1e-4.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

TOLERANCE = 1e-4


def main(run_dir: Path) -> None:
    rollouts = pq.read_table(run_dir / "rollouts" / "rollouts.parquet").to_pylist()
    first = [r for r in rollouts if r["policy_version_end"] == 0][:16]
    models = run_dir / "models"
    worst = {
        "sl_cai log-probabilities, transformers": transformers_logprobs(models / "sl_cai", first),
        "preference scores, transformers": transformers_scores(models / "preference_model", rollouts[-32:]),
        "sl_cai log-probabilities, vLLM": vllm_logprobs(models / "sl_cai", first),
        "preference scores, vLLM": vllm_scores(models / "preference_model", rollouts[-32:]),
        "rl_cai transformers against vLLM": rl_cai(models / "rl_cai", first),
    }
    for what, difference in worst.items():
        print(f"{what}: largest difference {difference:.2e}")
    sys.exit(any(not difference <= TOLERANCE for difference in worst.values()))


def causal_logprobs(path: Path, rows: list) -> list[torch.Tensor]:
    """Log-probabilities of each row's response tokens, by stock transformers."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    found = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row["prompt_ids"] + row["response_ids"]])
            logprobs = model(ids).logits[0].log_softmax(-1)
            start = len(row["prompt_ids"])
            found.append(logprobs[start - 1 : -1].gather(1, ids[0, start:, None])[:, 0])
    return found


def transformers_logprobs(path: Path, rows: list) -> float:
    stock = causal_logprobs(path, rows)
    return max(
        (theirs - torch.tensor(row["logprobs"])).abs().max().item() for theirs, row in zip(stock, rows, strict=True)
    )


def dialogue(row: dict, eos: int) -> list[int]:
    ids = row["prompt_ids"] + row["response_ids"]
    return ids if ids[-1] == eos else [*ids, eos]


def transformers_scores(path: Path, rows: list) -> float:
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    eos = AutoTokenizer.from_pretrained(path).eos_token_id
    with torch.inference_mode():
        scores = [model(torch.tensor([dialogue(row, eos)])).logits.item() for row in rows]
    return max(abs(score - row["score"]) for score, row in zip(scores, rows, strict=True))


def open_vllm(path: Path, **settings):
    from vllm import LLM

    cpu = {"block_size": 32, "kv_cache_memory_bytes": 2**28}
    return LLM(str(path), dtype="float32", enforce_eager=True, max_model_len=256, **cpu, **settings)


def prompt_logprobs(llm, rows: list) -> list[torch.Tensor]:
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": row["prompt_ids"] + row["response_ids"]} for row in rows]
    outputs = llm.generate(prompts, SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    return [
        torch.tensor(
            [
                at[token].logprob
                for at, token in zip(output.prompt_logprobs[len(row["prompt_ids"]) :], row["response_ids"], strict=True)
            ]
        )
        for output, row in zip(outputs, rows, strict=True)
    ]


def vllm_logprobs(path: Path, rows: list) -> float:
    found = prompt_logprobs(open_vllm(path), rows)
    return max((f - torch.tensor(row["logprobs"])).abs().max().item() for f, row in zip(found, rows, strict=True))


def vllm_scores(path: Path, rows: list) -> float:
    from vllm import PoolingParams

    eos = AutoTokenizer.from_pretrained(path).eos_token_id
    llm = open_vllm(path, runner="pooling")
    prompts = [{"prompt_token_ids": dialogue(row, eos)} for row in rows]
    outputs = llm.classify(prompts, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
    return max(abs(o.outputs.probs[0] - row["score"]) for o, row in zip(outputs, rows, strict=True))


def rl_cai(path: Path, rows: list) -> float:
    theirs, ours = prompt_logprobs(open_vllm(path), rows), causal_logprobs(path, rows)
    return max((a - b).abs().max().item() for a, b in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
