"""Files of models: used when they are here, and what to do when they are not."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from backend.core.errors import UserError
from backend.models import weights
from backend.models.loading import load_model
from backend.models.model_files import n_parameters
from tests.dashboard import ROOT
from tests.tiny import llama, word_tokenizer

NAME = "owner/some-model"
HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    llama().save_pretrained(place)
    word_tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_into_cache(hub: Path, folder: Path) -> Path:
    """The files of a folder as the hub's library would have left them."""
    repository = hub / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / HASH
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(HASH)
    return snapshot


def unexpected(*_: object, **__: object) -> str:
    raise AssertionError("The hub was asked.")


def failing(error: type[Exception]) -> Callable[..., str]:
    response = httpx2.Response(403, request=httpx2.Request("GET", "https://huggingface.co"))

    def download(*_: object, **__: object) -> str:
        if issubclass(error, huggingface_hub.errors.HfHubHTTPError):
            raise error("no", response=response)
        raise error("no")

    return download


def test_a_cached_model_is_used_and_nobody_is_asked(
    hub: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = put_into_cache(hub, folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unexpected)
    assert weights.cached(NAME) == snapshot
    assert load_model(NAME).name == NAME


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer*"])
def test_a_cached_model_with_a_file_missing_is_not_taken_for_whole(
    hub: Path, folder: Path, missing: str
) -> None:
    snapshot = put_into_cache(hub, folder)
    for path in snapshot.glob(missing):
        path.unlink()
    assert weights.cached(NAME) is None


def test_a_model_in_parts_needs_all_of_them(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path, max_shard_size="60KB")
    word_tokenizer().save_pretrained(tmp_path)
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert weights.cached(tmp_path) == tmp_path
    assert n_parameters(tmp_path) == sum(p.numel() for p in llama().parameters())
    parts[0].unlink()
    assert weights.cached(tmp_path) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GatedRepoError, ["is gated", f"https://huggingface.co/{NAME}", "hf auth login"]),
        (RepositoryNotFoundError, ["has no model", f"https://huggingface.co/{NAME}"]),
        (LocalEntryNotFoundError, ["cannot be reached", f"hf download {NAME} --include"]),
        (OfflineModeIsEnabled, ["cannot be reached", f"hf download {NAME} --include"]),
        (ConnectionError, ["cannot be reached", f"hf download {NAME} --include"]),
    ],
)
def test_what_keeps_a_model_away_is_told_with_what_to_do(
    hub: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], said: list[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(error))
    with pytest.raises(UserError) as raised:
        load_model(NAME)
    for words in said:
        assert words in str(raised.value)


def test_the_download_command_is_one_that_the_hubs_tool_takes() -> None:
    import shlex

    command = shlex.split(weights.download_command(NAME))
    assert command[1:3] == ["download", NAME]
    tool = Path(sys.executable).with_name("hf")
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [tool, *command[1:]], env=offline, capture_output=True, text=True, check=False
    )
    assert "HF_HUB_OFFLINE" in ran.stdout + ran.stderr, "it should fail for want of a network only"


def test_offline_with_a_cache_the_command_line_works_and_without_one_it_says_what_to_do(
    tmp_path: Path, folder: Path
) -> None:
    def ask() -> subprocess.CompletedProcess[str]:
        own = {"HF_HOME": str(tmp_path), "CIRCUIT_EXPLORER_LOCAL": str(tmp_path / "local")}
        offline = os.environ | own | {"HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "backend", "accuracy", NAME, "--prompts", "5"]
        return subprocess.run(
            command, cwd=ROOT, env=offline, capture_output=True, text=True, check=False
        )

    without = ask()
    assert without.returncode == 1
    assert f"hf download {NAME}" in without.stderr
    assert "Traceback" not in without.stderr
    put_into_cache(tmp_path / "hub", folder)
    assert json.loads(ask().stdout)["header"]["request"]["models"] == [NAME]


def pickled(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place)
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    return place


class Trap:
    """What makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.made,)


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "adapter_model.bin"])
def test_pickles_are_never_opened(tmp_path: Path, folder: Path, weights: str) -> None:
    place, made = pickled(folder, tmp_path / "pickled"), tmp_path / "made"
    if weights.startswith("adapter"):
        (place / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": str(folder), "peft_type": "LORA"})
        )
    (place / weights).write_bytes(pickle.dumps(Trap(made)))
    with pytest.raises(UserError, match=r"pickle files.*load it again"):
        load_model(str(place))
    assert not made.exists()
    pickle.loads((place / weights).read_bytes())
    assert made.exists(), "this trap should work"


def test_a_hub_model_with_pickles_only_is_told_apart(
    hub: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pickled(folder, tmp_path / "pickled")
    (place / "pytorch_model.bin").unlink()  # not among what is fetched
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(place))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda _: ["pytorch_model.bin"])
    with pytest.raises(
        UserError, match=r"pickle files.*spaces/safetensors/convert, then load it again"
    ):
        load_model(NAME)


def test_an_adapter_that_does_not_name_its_base_says_how_to_add_it(tmp_path: Path) -> None:
    config = LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights=False)
    get_peft_model(llama(), config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"does not name its base.*Models page"):
        load_model(str(tmp_path))
