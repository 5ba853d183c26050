"""Step 3. Consumes: red-team prompts and models/sl_cai. Waits for: the generator's and the labeller's engines.
Produces: comparisons/ and preferences/, one label for each comparison, judged in both orders."""

from __future__ import annotations

from rlaif.label_quality import measure
from rlaif.labelling import Label
from rlaif.records import Comparison, Preference
from rlaif.sampling import SamplePair
from rlaif.stages.evaluate import sample_answers
from rlaif.stages.run import Run, collect


async def label(run: Run) -> None:
    await _compare(run)
    await _judge(run)


async def _compare(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    task = SamplePair(seed=config.seed, dialogue_format=config.dialogue_format, sampling=config.sampling)
    async with run.pool("generator", str(run_dir.model("sl_cai"))) as pool:
        await collect(run, "comparisons", pool, task, run.prompts("red_team"), run.num_prompts("red_team"))
        await sample_answers(run, pool, "sl_cai")
    run_dir.journal.export(Comparison, "comparisons", run_dir.path / "comparisons" / "comparisons.parquet")


async def _judge(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    task = Label(
        seed=config.seed,
        constitution=run.constitution,
        settings=config.labelling,
        dialogue_format=config.dialogue_format,
    )
    pairs = run_dir.journal.records(Comparison, "comparisons")
    async with run.pool("labeller", run.path(config.labeller.model)) as pool:
        await collect(run, "preferences", pool, task, pairs, run_dir.journal.count("comparisons"))
    await run.release("labeller")
    run_dir.journal.export(Preference, "preferences", run_dir.path / "preferences" / "preferences.parquet")
    quality = measure(run_dir.journal.records(Preference, "preferences"))
    run_dir.metrics.write("label", quality.metrics())
