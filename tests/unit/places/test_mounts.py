"""Which storage several machines share."""

from pathlib import Path

import pytest

from rlaif.places.mounts import file_system, is_on_this_machine

MOUNTS = """\
22 1 259:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / /mnt/shared rw,relatime shared:9 - nfs4 server:/export rw,vers=4.2
31 30 0:41 / /mnt/shared/scratch rw - tmpfs tmpfs rw
32 22 0:42 / /mnt/with\\040space rw - fuse.juicefs volume rw
33 22 0:43 / /mnt/lustre rw - ext4 /dev/old rw
34 22 0:44 / /mnt/lustre rw - lustre mgs:/data rw
"""


@pytest.mark.parametrize(
    ("path", "found", "local"),
    [
        ("/home/runs", "ext4", True),
        ("/mnt/shared/runs/x", "nfs4", False),
        ("/mnt/sharedness", "ext4", True),
        ("/mnt/shared/scratch/x", "tmpfs", True),
        ("/mnt/with space/x", "fuse.juicefs", False),
        ("/mnt/lustre/x", "lustre", False),
    ],
)
def test_a_path_is_on_the_innermost_and_latest_mount(tmp_path, path, found, local):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert file_system(Path(path), tmp_path / "mounts") == found
    assert is_on_this_machine(Path(path), tmp_path / "mounts") is local


def test_where_the_system_does_not_say_a_disk_is_of_this_machine(tmp_path):
    assert file_system(tmp_path, tmp_path / "no such file") is None
    assert is_on_this_machine(tmp_path, tmp_path / "no such file")
