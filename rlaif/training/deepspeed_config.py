"""A trainer's settings in DeepSpeed's own words."""

from __future__ import annotations

from typing import Any

import torch

from rlaif.config.trainer import Trainer

ConfigDict = dict[str, Any]  #: the JSON that ``deepspeed.initialize`` reads


def effective_zero_stage(trainer: Trainer) -> int:
    """The ZeRO stage that is used: bfloat16 and offload need at least stage 1, which keeps float32 master weights.

    Gradients that are summed in float32 beside bfloat16 weights need stage 2: in stage 1, DeepSpeed then takes another
    optimizer, which applies gradients that are not finite.
    """
    if trainer.dtype == "bfloat16":
        return max(trainer.zero_stage, 2 if trainer.grad_accum_dtype == "float32" else 1)
    return max(trainer.zero_stage, 1) if trainer.cpu_offload else trainer.zero_stage


def training_config(trainer: Trainer, *, learning_rate: float, weight_decay: float, max_grad_norm: float) -> ConfigDict:
    """For a model with an optimizer.

    Torch's fused AdamW, on GPUs and CPUs: DeepSpeed's own optimizers are compiled at run time, by a toolchain that a
    node may lack, and a rank that is killed meanwhile leaves a lock that later ranks wait for.
    Betas (0.9, 0.95): the usual choice for language models, steadier than 0.999 on runs of few steps.
    """
    zero_stage = effective_zero_stage(trainer)
    zero: ConfigDict = {"stage": zero_stage}
    if trainer.cpu_offload and zero_stage >= 1:
        zero["offload_optimizer"] = _offload()
    if trainer.cpu_offload and zero_stage == 3:
        zero["offload_param"] = _offload()
    optimizer = {"lr": learning_rate, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": weight_decay}
    return {
        "train_micro_batch_size_per_gpu": 1,  # a formality: micro-batches are cut by tokens
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": max_grad_norm if zero_stage else 0.0,  # stage 0: see ``DeepSpeedModel._clip``
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": trainer.dtype == "bfloat16"},
        "data_types": {
            "grad_accum_dtype": "bf16" if trainer.grad_accum_dtype == trainer.dtype == "bfloat16" else "fp32"
        },
        "optimizer": {"type": "AdamW", "params": {**optimizer, "torch_adam": True, "fused": True}},
        "steps_per_print": 10**9,
    }


def partition_config(trainer: Trainer) -> ConfigDict | None:
    """How a trained model is partitioned while it is loaded; None if it is not (before ZeRO-3)."""
    if trainer.zero_stage != 3:
        return None
    config = frozen_config(trainer)
    if trainer.cpu_offload:
        config["zero_optimization"] |= {"offload_param": _offload()}
    return config


def _offload() -> ConfigDict:
    return {"device": "cpu", "pin_memory": torch.cuda.is_available()}


def frozen_config(trainer: Trainer) -> ConfigDict:
    """For a model that is only read, partitioned among the ranks (ZeRO-3)."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3},
        "bf16": {"enabled": trainer.dtype == "bfloat16"},
        "steps_per_print": 10**9,
    }
