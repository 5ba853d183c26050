"""Runs that share everything up to the preference model and differ only in reinforcement."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from rlaif.storage.journal import Journal
from rlaif.storage.manifest import read_manifest, write_manifest

LATER = ("reinforce", "rollouts", "answers_rl_cai", "refresh_")  #: prefixes of the names of what reinforcement produces
BEFORE = ("read", "revise", "supervise", "label", "fit_preference_model")


def branch(base: Path, run_dir: Path, config: Config) -> Config:
    """Start ``run_dir`` as a copy of ``base`` up to the preference model, with another configuration; returns that."""
    ignore = shutil.ignore_patterns("rl_cai", "checkpoints", "rollouts", "ray_train", "report.html", "journal.sqlite-*")
    with closing(sqlite3.connect(base / "journal.sqlite")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(base, run_dir, ignore=ignore)
    (run_dir / "config.yaml").write_text(dump_config(config))
    manifest = read_manifest(run_dir)  # of any format
    manifest["stages"] = {name: manifest["stages"][name] for name in BEFORE}
    manifest["rows"] = {kind: rows for kind, rows in manifest["rows"].items() if not kind.startswith(LATER)}
    write_manifest(run_dir, manifest)
    Journal(run_dir / "journal.sqlite").close()  # brings the tables of earlier formats up to date
    with closing(sqlite3.connect(run_dir / "journal.sqlite")) as db:
        for kind in LATER:
            db.execute("DELETE FROM records WHERE kind GLOB ?", (f"{kind}*",))
        db.commit()
    return config
