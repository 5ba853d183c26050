"""Real full disks: file systems in memory of a few kilobytes, in a mount namespace of their own (needs root)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.config.files import dump_config
from tests.machine import lacking
from tests.small_run import small

SORTING = """
import sys
from pathlib import Path
from rlaif.errors import StorageError
from rlaif.records import RevisionChain
from rlaif.storage.journal import Journal

journal = Journal(Path(sys.argv[1]))
row = ("revisions", 0, "", "f", 1, b"x" * 20_000, "")
with journal._transaction():
    for number in range(1_000):
        journal._db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", (*row[:2], str(number), *row[3:]))
try:
    next(journal.records(RevisionChain, "revisions"))
except StorageError as error:
    sys.exit(f"error: {error}")
"""


def on_a_disk_of(kib: int, place: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command while ``place`` is a disk of ``kib`` KiB."""
    place.mkdir()
    mount = f'mount -t tmpfs -o size={kib}k tmpfs "$0" && "$@"'
    allowed = shutil.which("unshare") and os.geteuid() == 0
    if not allowed or subprocess.run(["unshare", "-m", "sh", "-c", mount, str(place), "true"]).returncode:
        lacking("right to mount a file system (root)")
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, str(place), sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "SQLITE_TMPDIR": str(place)},
    )


@pytest.mark.parametrize("kib", [4, 16, 64, 256, 1024])
def test_a_full_disk_is_one_clear_error(tiny_config, tmp_path, kib):
    (tmp_path / "config.yaml").write_text(dump_config(small(tiny_config, tmp_path)))
    disk = tmp_path / "disk"
    command = ("-m", "actors.cli", "run", tmp_path / "config.yaml", f"run_dir={disk}", "--in-process")
    done = on_a_disk_of(kib, disk, *command)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(disk) in line and ("full" in line or "No space left" in line), line
    assert "Traceback" not in done.stderr


def test_a_full_temporary_directory_is_one_clear_error(tmp_path):
    done = on_a_disk_of(64, tmp_path / "disk", "-c", SORTING, tmp_path / "journal.sqlite")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "journal.sqlite: database or disk is full; free some of the disk, or of the temporary directory" in done.stderr
    )
