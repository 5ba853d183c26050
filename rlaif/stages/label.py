"""Step 3. Consumes: red-team prompts and models/sl_cai. Waits for: the generator's and the labeller's engines.
Produces: comparisons/ and preferences/, one label for each comparison, judged in both orders; label_quality.json.

``label_pairs`` is the same labelling alone, for pairs that a user brings (``rlaif label``)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable

from rlaif.constitution.diff import ConstitutionDiff, diff
from rlaif.data.comparisons import read_comparisons
from rlaif.labels.cost import cost_metrics
from rlaif.labels.quality import measure
from rlaif.prompting.examples import LabelExample, read_examples
from rlaif.prompting.questions import read_template
from rlaif.records import Comparison, Preference
from rlaif.stages.evaluate import sample_answers
from rlaif.stages.read import account_source
from rlaif.stages.run import Run, collect
from rlaif.storage.run_dir import write_atomically
from rlaif.tasks.labelling import Label, principles_for
from rlaif.tasks.sampling import SamplePair

STAGE = "preferences"


async def label(run: Run) -> None:
    await asyncio.gather(  # the labeller loads its model while the generator loads its own
        run.start("generator", str(run.run_dir.model("sl_cai"))),
        run.start("labeller", run.path(run.config.labeller.model)),
    )
    await _compare(run)
    journal = run.run_dir.journal
    await _judge(run, journal.records(Comparison, "comparisons"), journal.count("comparisons"))
    _conclude(run)


async def label_pairs(run: Run) -> None:
    """Label ``data.comparisons``. What is labelled already stays, unless its principles say something else now."""
    source = str(run.config.data.comparisons)
    num_pairs = account_source(run, "pairs", source, read_comparisons(source, run.quarantine))
    _forget_outdated(run)
    journal = run.run_dir.journal
    if journal.count(STAGE) + journal.num_quarantined(STAGE) < num_pairs:  # else no engine need start
        await _judge(run, read_comparisons(source, run.quarantine), num_pairs)
    _conclude(run)
    run.run_dir.write_quarantine()


def _forget_outdated(run: Run) -> None:
    """Targeted relabelling: drop the labels that the constitution as it is now would make otherwise."""
    old, new, run_dir = run.run_dir.constitution(), run.constitution, run.run_dir
    if old is not None and old.hash != new.hash:
        changed = diff(old, new)
        labels = run_dir.journal.records(Preference, STAGE)
        outdated = [made.id for made in labels if made.constitution_hash != new.hash and _differs(run, made, changed)]
        run_dir.journal.forget(STAGE, outdated)
        run_dir.events.write("labels_outdated", num=len(outdated), constitution=new.hash)
    run_dir.keep_constitution(new)


def _differs(run: Run, made: Preference, changed: ConstitutionDiff) -> bool:
    drawn = principles_for(run.constitution, run.config.labelling, made.seed, made)
    return changed.outdates((j.principle_id for j in made.judgements), (p.id for p in drawn))


async def _compare(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    task = SamplePair(seed=config.seed, dialogue_format=config.dialogue_format, sampling=config.sampling)
    async with run.pool("generator", str(run_dir.model("sl_cai"))) as pool:
        await collect(run, "comparisons", pool, task, run.prompts("red_team"), run.num_prompts("red_team"))
        await sample_answers(run, pool, "sl_cai")
    run_dir.journal.export(Comparison, "comparisons", run_dir.path / "comparisons" / "comparisons.parquet")


def label_task(run: Run) -> Label:
    config = run.config
    return Label(
        seed=config.seed,
        constitution=run.constitution,
        settings=config.labelling,
        dialogue_format=config.dialogue_format,
        template=read_template(config.labelling.template),
        examples=read_examples(LabelExample, config.labelling.examples, field="labelling.examples"),
    )


async def _judge(run: Run, pairs: Iterable[Comparison], num_pairs: int | None) -> None:
    config, run_dir = run.config, run.run_dir
    task = label_task(run)
    async with run.pool("labeller", run.path(config.labeller.model)) as pool:
        before, started = run_dir.journal.count(STAGE), time.monotonic()
        await collect(run, STAGE, pool, task, pairs, num_pairs)
        seconds = time.monotonic() - started
    await run.release("labeller")
    run_dir.metrics.write(
        "label", cost_metrics(run_dir.journal.count(STAGE) - before, seconds, config.labeller.min, config.labeller)
    )


def _conclude(run: Run) -> None:
    """Export the labels and measure them."""
    run.run_dir.journal.export(Preference, STAGE, run.run_dir.path / "preferences" / "preferences.parquet")
    quality = measure(run.run_dir.journal.records(Preference, STAGE))
    run.run_dir.metrics.write("label", quality.metrics())
    write_atomically(run.run_dir.path / "label_quality.json", json.dumps(quality.summary(), indent=2) + "\n")
