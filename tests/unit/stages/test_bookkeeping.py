"""Which rows the same command tries again, and when a step has lost too much."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.errors import EngineError, GateError, LossError, RequestError
from rlaif.in_process import InProcessPools
from rlaif.interfaces import Done, Failure
from rlaif.labels.quality import check_gate
from rlaif.records import Preference, Quarantined
from rlaif.stages.bookkeeping import label_quality
from rlaif.stages.label import label_pairs
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir

NUM = 20


class FailingPools(InProcessPools):
    """Pools whose engines cannot serve some rows. ``failures``: the error by the number of the row."""

    failures: dict[int, Exception] = {}  # noqa: RUF012
    asked: list[int] = []  # noqa: RUF012

    async def open(self, role, model, engines):
        pool = await super().open(role, model)
        run, failures, asked = pool.run, self.failures, self.asked

        async def failing(task, rows):
            async for results in run(task, rows):
                asked.extend(done.row.source_row for done in results)
                yield [
                    Done(row=done.row, record=None, failure=Failure.of(failures[done.row.source_row]))
                    if done.row.source_row in failures
                    else done
                    for done in results
                ]

        pool.run = failing
        return pool


@pytest.fixture
def config(tmp_path, tiny_world) -> Config:
    rows = [{"prompt": f"q{i}", "answer_1": "yes", "answer_2": "no"} for i in range(NUM)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Config.model_validate(
        {
            "run_dir": str(tmp_path / "run"),
            "constitution": "nine_points",
            "data": {"comparisons": str(tmp_path / "pairs.jsonl")},
            "labeller": {"engine": "scripted", "model": tiny_world["feedback"]},
        }
    )


async def label(config: Config, failures: dict[int, Exception]) -> tuple[list[int], int, list[str]]:
    """Run the command; which rows engines were asked about, how many labels there are, and who has which fault."""
    FailingPools.failures, FailingPools.asked = failures, []
    with closing(RunDir(Path(config.run_dir), config)) as run_dir:
        run = Run(
            config=config,
            constitution=load_constitution(config.constitution),
            run_dir=run_dir,
            paths={},
            pools=FailingPools(config),
            trainers=None,
            progress=Silent(),
        )
        try:
            await label_pairs(run)
        finally:
            await run.release()
            entries = [f"{row.row} {row.fault}" for row in run_dir.journal.quarantine_entries()]
            num = len(list(run_dir.journal.records(Preference, "preferences")))
        return sorted(FailingPools.asked), num, entries


async def test_rows_that_failed_for_a_cause_outside_themselves_are_tried_again(config):
    failures = {3: EngineError("the model is gone"), 5: ValueError("no template"), 7: RequestError("too long")}
    assert await label(config, failures) == (list(range(1, NUM + 1)), NUM - 3, ["3 outside", "5 outside", "7 row"])
    assert await label(config, failures) == ([3, 5], NUM - 3, ["3 outside", "5 outside", "7 row"])
    assert await label(config, {}) == ([3, 5], NUM - 1, ["7 row"])
    assert await label(config, {}) == ([], NUM - 1, ["7 row"])


async def test_a_row_that_cannot_be_served_is_tried_again_once_it_has_changed(config):
    await label(config, {7: RequestError("too long")})
    source = Path(config.data.comparisons.path)
    source.write_text(source.read_text().replace('"q6"', '"q6, in short"'))
    assert await label(config, {}) == ([7], NUM, [])


@pytest.mark.parametrize("num_failed", [11, NUM])
async def test_a_step_that_loses_more_than_max_loss_fails_by_name_and_keeps_what_it_made(config, num_failed):
    failures = {row: ValueError(f"no chat template in attempt {row}") for row in range(1, num_failed + 1)}
    with pytest.raises(LossError, match=f"preferences: {NUM - num_failed} of {NUM} rows came out") as failed:
        await label(config, failures)
    assert f"({num_failed} rows): ValueError: no chat template in attempt" in str(failed.value)
    quarantined = (Path(config.run_dir) / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantined) == num_failed and all(json.loads(line)["fault"] == "outside" for line in quarantined)
    assert await label(config, {}) == (list(range(1, num_failed + 1)), NUM, [])


def test_pairs_that_the_labeller_failed_on_count_in_the_quality_of_their_batch(tmp_path):
    with closing(RunDir(tmp_path / "run", Config())) as run_dir:
        for row, batch in ((1, 1), (2, 2), (3, 2)):
            entry = Quarantined(id=str(row), file="f", row=row, kind="refresh_preferences", batch=batch, cause="x")
            run_dir.journal.quarantine(entry)
        qualities = [label_quality(run_dir.journal, "refresh_preferences", batch) for batch in (0, 1, 2, None)]
    assert [quality.num_failed for quality in qualities] == [0, 1, 2, 3]
    with pytest.raises(GateError, match=r"invalid_rate is 1\.000"):
        check_gate(qualities[1].metrics(), Config().labelling.gate)


async def test_a_smaller_loss_is_allowed(config):
    failures = {row: ValueError("x") for row in range(1, NUM // 2 + 1)}
    assert (await label(config, failures))[1] == NUM // 2


async def test_labels_that_are_no_numbers_are_a_loss_too(config):
    slow = config.model_dump()
    slow["labeller"]["scripted"]["latency_s"] = 0.2
    slow["labelling"]["timeout_s"] = 0.01
    with pytest.raises(LossError, match=rf"0 of {NUM} labels are usable.*timeout: no judgement within 0\.01 s"):
        await label(Config.model_validate(slow), {})
