"""How a fit is set up, without Ray running."""

import os

from actors.trainer.fit import StartTimeout, run_config
from rlaif.config.trainer import Trainer


def test_ray_train_keeps_its_state_where_it_is_told_to(tmp_path):
    settings = run_config("supervise", Trainer(), tmp_path / "ray_train", mailbox=None)
    assert settings.storage_path == str(tmp_path / "ray_train")


def test_the_start_timeout_is_set_in_the_controller_and_not_in_the_driver(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", raising=False)
    settings = run_config("supervise", Trainer(start_timeout_s=77), tmp_path, mailbox=None)
    assert "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S" not in os.environ
    (callback,) = (callback for callback in settings.callbacks if isinstance(callback, StartTimeout))
    callback.after_controller_start(None)
    assert float(os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"]) == 77
