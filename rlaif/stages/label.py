"""Step 3. Consumes: red-team prompts and models/sl_cai. Waits for: the generator's and the labeller's engines.
Produces: comparisons/ and preferences/, one label for each comparison, judged in both orders; label_quality.json;
SL-CAI's answers to the held-out prompts.

``label_pairs`` labels pairs that a user brings (``rlaif label``), without the rest of the method."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable

from rlaif.constitution.principles import Constitution
from rlaif.errors import LossError
from rlaif.labels.cost import cost_metrics
from rlaif.labels.quality import LabelQuality
from rlaif.prompting.examples import LabelExample, read_examples
from rlaif.prompting.questions import read_template
from rlaif.records import Comparison, Preference
from rlaif.stages.bookkeeping import Recording, label_quality, record
from rlaif.stages.held_out import sample_answers
from rlaif.stages.read import read_inputs
from rlaif.stages.run import Run
from rlaif.storage.files import write_atomically
from rlaif.storage.run_dir import RunDir
from rlaif.tasks.labelling import Label
from rlaif.tasks.sampling import SamplePair

PREFERENCES = "preferences"
#: What the labels of a user's own pairs are made of, by configuration key.
LABEL_INPUTS = ("data.comparisons", "labeller.model", "constitution", "labelling.examples", "labelling.template")


async def label(run: Run) -> None:
    await run.begin("compare")
    await _compare(run)
    await run.begin("label")
    await _judge(run, lambda: run.run_dir.journal.records(Comparison, "comparisons"))
    _conclude(run)


async def label_pairs(run: Run) -> None:
    """Label ``data.comparisons``. Existing labels stay, unless what they were made of has changed."""
    read_inputs(run, run.run_dir, LABEL_INPUTS)
    await run.begin("label")
    try:
        await _judge(run, run.comparisons)
    finally:  # what was labelled is there, even if too much was lost
        _conclude(run)
        run.run_dir.write_quarantine()
    _check_usable(run)


def _check_usable(run: Run) -> None:
    """Raises LossError when no pair has a usable label, or fewer than ``max_loss`` allows."""
    unusable = Counter(
        f"{label.status}: {label.error}"
        for label in run.run_dir.journal.records(Preference, PREFERENCES)
        if label.prob is None
    )
    num, lost = run.run_dir.journal.count(PREFERENCES), unusable.total()
    if lost == num or lost > run.config.max_loss * num:
        (cause, number), *_ = unusable.most_common(1)
        raise LossError(
            f"{num - lost} of {num} labels are usable (max_loss={run.config.max_loss:g}); the most frequent cause "
            f"({number} labels): {cause}; what timed out is tried again by the same command"
        )


async def _compare(run: Run) -> None:
    config, run_dir = run.config, run.run_dir
    task = SamplePair(seed=config.seed, dialogue_format=run.format("policy"), sampling=config.sampling)
    model = str(run_dir.model("sl_cai"))
    await record(
        run,
        Recording(kind="comparisons", task=task, rows=lambda: run.prompts("red_team"), role="generator", model=model),
    )
    await sample_answers(run, "sl_cai", model)
    run_dir.export("comparisons")


def label_task(run: Run, constitution: Constitution) -> Label:
    """The task that labels by ``constitution``, which may be a part of the run's."""
    config = run.config
    return Label(
        seed=config.seed,
        constitution=constitution,
        settings=config.labelling,
        dialogue_format=run.format("labeller"),
        template=read_template(config.labelling.template),
        examples=read_examples(LabelExample, config.labelling.examples, field="labelling.examples"),
    )


async def _judge(run: Run, pairs: Callable[[], Iterable[Comparison]]) -> None:
    labeller = run.config.labeller
    recording = Recording(
        kind=PREFERENCES,
        task=label_task(run, run.constitution),
        rows=pairs,
        role="labeller",
        model=run.path(labeller.model),
    )
    effort = await record(run, recording)
    await run.release("labeller")
    costs = cost_metrics(effort.num_records, effort.seconds, effort.engine_seconds, labeller)
    run.run_dir.metrics.write("label", costs)


def _conclude(run: Run) -> None:
    """Export the labels and measure them."""
    run.run_dir.export(PREFERENCES)
    run.run_dir.metrics.write("label", write_quality(run.run_dir).metrics())


def write_quality(run_dir: RunDir) -> LabelQuality:
    """Measure the labels and write ``label_quality.json``."""
    quality = label_quality(run_dir.journal, PREFERENCES)
    write_atomically(run_dir.path / "label_quality.json", json.dumps(quality.summary(), indent=2) + "\n")
    return quality
