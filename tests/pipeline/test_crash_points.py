"""A run that is stopped at every durable write, and resumed: it ends as it would have, or refuses by name.

The run is small, its engines and trainers are scripted, and it is resumed in another place than it began in. By default
a sample of the points is tried; with ``RLAIF_ALL_CRASH_POINTS=1`` (``make crash-points``), all of them.
"""

import os
import shutil
from collections import defaultdict

from actors.driver import drive
from actors.work import PIPELINE
from rlaif.errors import RunDirError
from rlaif.stages.run import Silent
from tests.power_failures import Recorder, Tree, distinct, write
from tests.small_run import left_by, small

SAMPLED = 20  #: points that are tried by default


def sample(points: list[tuple[str, Tree]]) -> list[tuple[str, Tree]]:
    """As many of each kind of loss, spread over the run."""
    kinds = defaultdict(list)
    for point in points:
        kinds[point[0].rpartition(", ")[2]].append(point)
    most = SAMPLED // len(kinds)
    return [points[(2 * i + 1) * len(points) // (2 * most)] for points in kinds.values() for i in range(most)]


async def test_a_run_that_is_stopped_at_any_durable_write_ends_as_if_it_had_not_been(tiny_config, tmp_path):
    config, recorder = small(tiny_config, tmp_path), Recorder(tmp_path / "run", tmp_path / "graveyard")
    with recorder.watching():
        undisturbed = await drive(config, Silent(), PIPELINE, in_process=True)
    wanted = left_by(undisturbed)
    points = list(distinct(recorder.moments))
    tried = points if os.environ.get("RLAIF_ALL_CRASH_POINTS") else sample(points)
    refused = []
    for number, (what, tree) in enumerate(tried):
        place = write(tree, tmp_path / "found" / str(number))
        try:
            await drive(config.model_copy(update={"run_dir": str(place)}), Silent(), PIPELINE, in_process=True)
        except RunDirError as error:
            refused.append(f"{what}: {error}")
        except Exception as error:
            error.add_note(what)
            raise
        else:
            assert left_by(place) == wanted, what
            assert "stages_reopened" not in (place / "events.jsonl").read_text(), f"{what}: a manifest was ahead"
        shutil.rmtree(place)
    print(f"\n{len(recorder.moments)} durable writes, {len(points)} states of the disk after a loss")
    print(f"{len(tried)} resumed: {len(tried) - len(refused)} ended as undisturbed, {len(refused)} refused")
    assert not refused, "\n".join(refused)
