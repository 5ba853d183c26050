"""Whose a file is. Files that steer a run are believed only when they are the user's own, or root's."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

from rlaif.errors import RunDirError


def check_own_run(run_dir: Path) -> None:
    """Raises RunDirError when ``run_dir``, or a file that lies directly in it, belongs to another user, who could have
    put anything there.

    Only the driver writes such files. What is in the directories below, of ranks on a cluster that another user has
    started, is loaded without code.
    """
    for path in (run_dir, *sorted(path for path in run_dir.iterdir() if path.is_symlink() or not path.is_dir())):
        owner = foreign_owner(path)
        if owner is not None:
            raise RunDirError(
                f"{run_dir}: {path if path != run_dir else 'it'} belongs to {owner}, who may have put anything there; "
                "use another run_dir=, or, if you trust it, a copy of your own"
            )


def foreign_owner(path: Path) -> str | None:
    """The name of the user to whom ``path`` belongs, unless it is this one or root.

    Some storage shows all files as one user's, whoever made them; so this user is also the one to whom a new file
    there belongs.
    """
    uid = path.lstat().st_uid
    if uid in (os.geteuid(), 0) or uid == _uid_of_new_files(path if path.is_dir() else path.parent):
        return None
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _uid_of_new_files(directory: Path) -> int | None:
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            return os.fstat(file.fileno()).st_uid
    except OSError:
        return None
