"""Rows that manifest.json lists and journal.sqlite does not hold, as after a disk that lied about its writes."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from actors.driver import drive
from actors.work import PIPELINE, one_stage
from rlaif.config.schema import Config
from rlaif.errors import RunDirError
from rlaif.stages.run import Silent
from tests.small_run import left_by, small


def lose(run: Path, what: str) -> None:
    with closing(sqlite3.connect(run / "journal.sqlite")) as db:
        assert db.execute(f"DELETE FROM {what}").rowcount > 0
        db.commit()


async def done(config: Config, *stages: str) -> Path:
    for stage in stages:
        run = await drive(config, Silent(), one_stage(stage), in_process=True)
    return run


@pytest.mark.parametrize(
    ("stages", "what"),
    [
        (("read", "revise"), "records WHERE kind = 'revisions' AND source_row < 4"),
        (("read", "revise"), "source_rows"),
        (("read", "revise"), "quarantine"),
        (("read", "revise", "supervise", "label"), "records WHERE kind = 'preferences'"),
        (
            ("read", "revise", "supervise", "label", "fit_preference_model", "reinforce"),
            "records WHERE kind = 'rollouts' AND batch = 1",
        ),
    ],
)
async def test_lost_rows_of_the_last_stage_are_made_again(tiny_config, tmp_path, stages, what):
    config = small(tiny_config, tmp_path)
    wanted = left_by(await drive(config, Silent(), PIPELINE, in_process=True))
    again = config.model_copy(update={"run_dir": str(tmp_path / "again")})
    lose(await done(again, *stages), what)
    assert left_by(await drive(again, Silent(), PIPELINE, in_process=True)) == wanted


async def test_lost_rows_that_later_stages_have_built_on_are_named(tiny_config, tmp_path):
    config = small(tiny_config, tmp_path)
    run = await done(config, "read", "revise", "supervise")
    lose(run, "records WHERE kind = 'revisions' AND id IN (SELECT id FROM records WHERE kind = 'revisions' LIMIT 2)")
    said = r"revisions: manifest.json says 3 rows and 3 quarantined, journal.sqlite has 1 rows and 3 quarantined"
    with pytest.raises(RunDirError, match=rf"{said}\n.* make everything from revise on again with --from revise"):
        await drive(config, Silent(), PIPELINE, in_process=True)
