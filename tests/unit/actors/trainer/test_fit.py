"""How a fit is set up, without Ray running."""

import os

from actors.trainer.fit import Timeouts, run_config
from rlaif.config.trainer import Trainer


def test_ray_train_keeps_its_state_where_it_is_told_to(tmp_path):
    settings = run_config("supervise", Trainer(), tmp_path / "ray_train", mailbox=None)
    assert settings.storage_path == str(tmp_path / "ray_train")


def test_timeouts_are_set_in_the_controller_and_not_in_the_driver(tmp_path, monkeypatch):
    for name in ("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)  # after the test, too
    settings = run_config("supervise", Trainer(start_timeout_s=77, silence_timeout_s=5000), tmp_path, mailbox=None)
    assert "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S" not in os.environ
    (callback,) = (callback for callback in settings.callbacks if isinstance(callback, Timeouts))
    callback.after_controller_start(None)
    assert float(os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"]) == 77
    assert float(os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"]) > 5000, "Fit notices silence first"
