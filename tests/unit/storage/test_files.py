import sqlite3
import subprocess
import sys

import pytest

from rlaif.errors import RunDirError, RunError, StorageError
from rlaif.places.writing import replacing
from rlaif.storage.files import naming_full_disk, write_atomically


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "table.parquet"
    with replacing(path) as unfinished:
        unfinished.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["table.parquet"]


def test_a_file_that_could_not_be_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "table.parquet"
    write_atomically(path, "old")
    with pytest.raises(OSError, match="disk"), replacing(path) as unfinished:
        unfinished.write_text("ha")
        raise OSError("disk")
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("writer failed: No space left on device"),
        OSError(122, "Disk quota exceeded"),
        sqlite3.OperationalError("database or disk is full"),
        ExceptionGroup("loops", [ValueError("one"), OSError(28, "No space left on device")]),
    ],
)
def test_what_a_full_disk_made_fail_is_a_storage_error_that_says_so(tmp_path, error):
    message = "the disk is full; free some of it and run the same command again"
    with pytest.raises(StorageError, match=message), naming_full_disk(tmp_path):
        raise error


def test_other_failures_stay_what_they_are(tmp_path):
    for error in (ValueError("no"), RunError("no"), RunDirError("no")):
        with pytest.raises(type(error), match="no"), naming_full_disk(tmp_path):
            raise error


def test_commands_that_only_look_at_a_run_load_no_heavy_library():
    code = "import sys, rlaif.storage.files, rlaif.storage.manifest, actors.cli.control; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "numpy", "torch", "ray", "vllm", "transformers"} & set(done.stdout.split())
