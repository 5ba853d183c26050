"""Step 3. Consumes: red-team prompts and models/sl_cai. Waits for: the generator's and the labeller's engines.
Produces: comparisons/ and preferences/, one label for each comparison, judged in both orders; label_quality.json;
SL-CAI's answers to the held-out prompts.

``label_pairs`` labels pairs that a user brings (``rlaif label``), without the rest of the method."""

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
from rlaif.stages.bookkeeping import account_source, collect
from rlaif.stages.held_out import sample_answers
from rlaif.stages.run import Run
from rlaif.storage.files import write_atomically
from rlaif.tasks.labelling import Label, principles_for
from rlaif.tasks.sampling import SamplePair

PREFERENCES = "preferences"


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
    """Label ``data.comparisons``. Existing labels stay, unless their principles have changed."""
    source = str(run.config.data.comparisons)
    num_pairs = account_source(run, "pairs", source, read_comparisons(source, run.quarantine))
    _forget_outdated(run)
    journal = run.run_dir.journal
    if journal.count(PREFERENCES) + journal.num_quarantined(PREFERENCES) < num_pairs:  # otherwise no engine is needed
        await _judge(run, read_comparisons(source, run.quarantine), num_pairs)
    _conclude(run)
    run.run_dir.write_quarantine()


def _forget_outdated(run: Run) -> None:
    """Targeted relabelling: drop the labels that would be different under the constitution as it is now."""
    old, new, run_dir = run.run_dir.constitution(), run.constitution, run.run_dir
    if old is not None and old.hash != new.hash:
        changed = diff(old, new)
        others = (x for x in run_dir.journal.records(Preference, PREFERENCES) if x.constitution_hash != new.hash)
        outdated = [label.id for label in others if _differs(run, label, changed)]
        run_dir.journal.forget(PREFERENCES, outdated)
        run_dir.events.write("labels_outdated", num=len(outdated), constitution=new.hash)
    run_dir.keep_constitution(new)


def _differs(run: Run, label: Preference, changed: ConstitutionDiff) -> bool:
    drawn = principles_for(run.constitution, run.config.labelling, label.seed, label)
    return changed.outdates((j.principle_id for j in label.judgements), (p.id for p in drawn))


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
        num_before = run_dir.journal.count(PREFERENCES)
        engine_s_before, started = pool.engine_seconds(), time.monotonic()
        await collect(run, PREFERENCES, pool, task, pairs, num_pairs)
        engine_s, seconds = pool.engine_seconds() - engine_s_before, time.monotonic() - started
    await run.release("labeller")
    num_labels = run_dir.journal.count(PREFERENCES) - num_before
    run_dir.metrics.write("label", cost_metrics(num_labels, seconds, engine_s, config.labeller))


def _conclude(run: Run) -> None:
    """Export the labels and measure them."""
    run.run_dir.journal.export(Preference, PREFERENCES, run.run_dir.path / "preferences" / "preferences.parquet")
    quality = measure(run.run_dir.journal.records(Preference, PREFERENCES))
    run.run_dir.metrics.write("label", quality.metrics())
    write_atomically(run.run_dir.path / "label_quality.json", json.dumps(quality.summary(), indent=2) + "\n")
