"""The tokenizer that a GGUF file describes: made by transformers, checked against the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_PRE_TOKENIZER_SPLITS,
    convert_gguf_tokenizer,
    get_gguf_tokenizer,
)

from backend.core.errors import UserError

_BYTE_LEVEL = "gpt2"
_KINDS = (_BYTE_LEVEL, "llama")
_AS_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo")
_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r")
"""As llama.cpp splits: each digit on its own, then as GPT-2; transformers does the latter only."""
_CONTROL = 3
_SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_TEXT = "The 12 apples, Mary’s and John's, are in Box F:  $3.50!\n"


def write_tokenizer(path: Path, fields: Mapping[str, Any], folder: Path) -> None:
    """Write the tokenizer of a GGUF file into a folder that has its config.json already.

    Raises UserError for one of a kind that is not known here; ValueError when what would be loaded
    from the folder differs from what the file says.
    """
    kind, split = (fields.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    known = (*_AS_GPT2, *_DIGITS_APART, *GGUF_PRE_TOKENIZER_SPLITS)
    if kind not in _KINDS or (kind == _BYTE_LEVEL and split not in known):
        raise UserError(
            f"Its tokenizer is of a kind that is not known here (“{kind}”, “{split}”): its words "
            "might be cut wrongly. Give the model as safetensors instead, with its tokenizer.json."
        )
    architecture, about, config = get_gguf_tokenizer(str(path))
    fast, _ = convert_gguf_tokenizer(architecture, about)
    if kind == _BYTE_LEVEL and split in _DIGITS_APART:
        fast.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    special = {name: token for name in _SPECIAL if (token := config.get(name)) is not None}
    begins = bool(config.get("add_bos_token")) and "bos_token" in special
    made = PreTrainedTokenizerFast(tokenizer_object=fast, add_bos_token=begins, **special)
    made.save_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(
        folder, use_fast=True, trust_remote_code=False, local_files_only=True
    )
    _check(loaded, fields, begins)


def _check(tokenizer: Any, fields: Mapping[str, Any], begins: bool) -> None:
    """Raise ValueError unless the tokenizer has the file's tokens at their places."""
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    if len(set(tokens)) != len(tokens):
        raise ValueError("a token stands twice in its vocabulary")
    if len(tokenizer) != len(tokens):
        raise ValueError(f"it has {len(tokens):,} tokens, its tokenizer {len(tokenizer):,}")
    found = tokenizer.convert_ids_to_tokens(range(len(tokens)))
    for number, (there, said) in enumerate(zip(found, tokens, strict=True)):
        if there != said:
            raise ValueError(f"its token {number} is {said!r}, and its tokenizer has {there!r}")
    for name, field in _SPECIAL.items():
        said_id = fields.get(f"tokenizer.ggml.{field}")
        if said_id is not None and getattr(tokenizer, f"{name}_id") != said_id:
            raise ValueError(f"its {name} is not the one that its tokenizer has")
    kinds = fields.get("tokenizer.ggml.token_type") or [0] * len(tokens)
    for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind == _CONTROL and tokenizer.encode(token, add_special_tokens=False) != [number]:
            raise ValueError(f"its tokenizer takes its control token {token!r} apart")
    ids = tokenizer.encode(_TEXT)
    if (ids[:1] == [tokenizer.bos_token_id]) != begins:
        raise ValueError("a text does not begin as it says")
    if tokenizer.decode(ids, skip_special_tokens=True).lstrip(" ") != _TEXT:
        raise ValueError("a text is not the same after it is cut into tokens and put together")
