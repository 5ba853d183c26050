"""Which file system a path is on, and whether only this machine has it."""

from __future__ import annotations

from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
#: Of disks and memory of one machine; what is not listed may be seen by several (nfs, lustre, ceph, gpfs, fuse...).
_DISKS = ("apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "ntfs3", "vfat", "xfs")
LOCAL = frozenset((*_DISKS, "overlay", "ramfs", "tmpfs", "zfs"))


def file_system(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the file system that ``path`` is on, as ``mount`` names it; None where the system does not say."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    places = path.resolve()
    found: dict[Path, str] = {}
    for line in lines:  # ID PARENT DEVICE ROOT PLACE OPTIONS [TAGS] - TYPE SOURCE OPTIONS; a later mount hides others
        before, _, after = line.partition(" - ")
        place = Path(before.split()[4].replace("\\040", " "))
        if places.is_relative_to(place):
            found[place] = after.split()[0]
    return found[max(found, key=lambda place: len(place.parts))] if found else None


def is_on_this_machine(path: Path, mounts: Path = MOUNTS) -> bool:
    """Whether no other machine sees ``path``. Where the system does not say, it is taken for a disk of this one."""
    return file_system(path, mounts) in (LOCAL | {None})
