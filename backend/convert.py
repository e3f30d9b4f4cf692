"""Pickled weights made into safetensors, once, for models that are published without.

    python -m backend.convert owner/name folder

Only tensors are unpickled (torch's `weights_only`), and no code that comes with a model is run. The
folder can then be added on the Models page.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.errors import UserError


def convert(source: str, folder: Path) -> Path:
    """Write a model's or an adapter's weights, and what belongs to them, into a new folder.

    Raises UserError when the folder is there already and when the weights cannot be read.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if folder.exists():
        raise UserError(f"{folder} is there already. Choose another folder.")
    try:
        place = _pickled(source)
        if (place / "adapter_config.json").is_file():
            weights = torch.load(place / "adapter_model.bin", map_location="cpu", weights_only=True)
            folder.mkdir(parents=True)
            apart = {name: tensor.clone() for name, tensor in weights.items()}
            save_file(apart, folder / "adapter_model.safetensors", {"format": "pt"})
            shutil.copy(place / "adapter_config.json", folder)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                place, use_safetensors=False, trust_remote_code=False, dtype="auto"
            )
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:
        # Whatever a foreign file makes torch or transformers raise is about that file.
        raise UserError(
            f"“{source}” cannot be converted: {type(error).__name__}: {error} Check that it is "
            "the folder or the hub name of a model with pickled weights."
        ) from error
    return folder


def main(arguments: Sequence[str]) -> int:
    """Convert; returns 0, or 1 after a message about what to put right."""
    if len(arguments) != 2:
        print("usage: python -m backend.convert SOURCE FOLDER", file=sys.stderr)
        return 2
    source, folder = arguments
    try:
        print(f"Written to {convert(source, Path(folder)).resolve()}: add it on the Models page.")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _pickled(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            source,
            allow_patterns=["*.json", "*.bin", "tokenizer*", "*.txt"],
            ignore_patterns=["*/*", "training_args.bin"],
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
