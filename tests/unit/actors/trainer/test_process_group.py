"""How ranks find each other, without Ray running."""

import pytest
from ray.train.torch import TorchConfig

from actors.trainer.process_group import OneMachineConfig, torch_config
from rlaif.config.schema import Trainer


@pytest.mark.parametrize(("address", "kind"), [("127.0.0.1:6379", OneMachineConfig), ("10.0.0.7:6379", TorchConfig)])
def test_ranks_of_one_machine_need_no_listening_store(address, kind):
    config = torch_config(Trainer(step_timeout_s=77), address)
    assert type(config) is kind
    assert (config.backend, config.timeout_s) == ("gloo", 77)


def test_ranks_on_gpus_speak_nccl():
    assert torch_config(Trainer(gpus=1), "127.0.0.1:1").backend == "nccl"
