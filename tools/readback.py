"""Read an export with the tool that it is for, and compare: python tools/readback.py EXPORT POOL

Run it in an environment that has that tool: LLaMA-Factory for sharegpt, datasets for parquet, webdataset for
webdataset. Qwen-VL's and LLaVA's fine-tuning code are no packages: their loaders' rules are applied here.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Artifact, Skips, read_json
from embodied_midtrain.samples import Sample, decode_image
from embodied_midtrain.sources.opening import open_pool

Seen = tuple[str, list[str], list[Any]]
"""Id, the text of each turn without image tags, the images (decoded)."""


def llama_factory(folder: Path) -> Iterator[Seen]:
    """By its own loader, converter and check of the number of images."""
    os.environ.setdefault("DISABLE_VERSION_CHECK", "1")
    importlib.import_module("transformers.audio_utils")
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        # Its image code imports torchaudio, of which there may be none for this torch; no sound is read here.
        stub = types.ModuleType("torchaudio")
        stub.__spec__ = ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = stub
    loader = importlib.import_module("llamafactory.data.loader")
    plugins = importlib.import_module("llamafactory.data.mm_plugin")
    hparams = importlib.import_module("llamafactory.hparams.data_args")
    (name,) = read_json(folder / "dataset_info.json")
    data = hparams.DataArguments(dataset=name, dataset_dir=str(folder), overwrite_cache=True)
    model = types.SimpleNamespace(cache_dir=str(folder.parent / ".readback"), hf_hub_token=None)
    training = types.SimpleNamespace(local_process_index=0, seed=0, dataloader_num_workers=0)
    plugin = plugins.get_mm_plugin("llava", image_token="<image>")
    loaded = loader._get_merged_dataset([name], model, data, training, "sft")
    ids = [record["id"] for record in read_json(folder / "data.json")]
    for id, row in zip(ids, loaded, strict=True):
        messages, images = [*row["_prompt"], *row["_response"]], row["_images"] or []
        if not messages:
            raise ValueError(f"{id}: LLaMA-Factory skips it as abnormal")
        plugin._validate_messages(messages, images, [], [])
        read = plugin._regularize_images(images, image_max_pixels=1 << 40, image_min_pixels=1)["images"]
        yield id, _texts([message["content"] for message in messages]), list(read)


def hugging_face(folder: Path) -> Iterator[Seen]:
    """By `datasets.load_dataset` on the folder."""
    datasets = importlib.import_module("datasets")
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / ".readback"))
    for row in loaded:
        parts = [part for message in row["messages"] for part in message["content"]]
        if sum(part["type"] == "image" for part in parts) != len(row["images"]):
            raise ValueError(f"{row['id']}: image parts and images differ in number")
        yield row["id"], [part["text"] for part in parts if part["type"] == "text"], row["images"]


def web_dataset(folder: Path) -> Iterator[Seen]:
    """By webdataset's own pipeline, images decoded by it."""
    webdataset = importlib.import_module("webdataset")
    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    for row in webdataset.WebDataset(shards, shardshuffle=False).decode("pil"):
        record = row["json"]
        images = [row[name] for name in sorted(row) if name.endswith(("jpg", "png"))]
        yield record["id"], _texts([turn["value"] for turn in record["conversations"]]), images


def qwen(folder: Path) -> Iterator[Seen]:
    """By the rules of qwen-vl-finetune's data_processor.py: an image for each tag of a human turn, none left over."""
    for record in json.loads((folder / "data.json").read_text()):
        names = record.get("image") or []
        names = [names] if isinstance(names, str) else list(names)
        left = [(folder / name).resolve() for name in names]
        images = []
        for number, turn in enumerate(record["conversations"]):
            if turn["from"] != ("gpt" if number % 2 else "human"):
                raise ValueError(f"{record['id']}: turn {number} is of {turn['from']}")
            if turn["from"] == "gpt" and ("<image>" in turn["value"] or "<video>" in turn["value"]):
                raise ValueError(f"{record['id']}: a tag in an answer")
            for _ in range(turn["value"].count("<image>")):
                images.append(decode_image(left.pop(0).read_bytes()))
        if left:
            raise ValueError(f"{record['id']}: {len(left)} images remain unused")
        yield record["id"], _texts([turn["value"] for turn in record["conversations"]]), images


def _texts(values: list[str]) -> list[str]:
    return [value.replace("<image>", "").strip() for value in values]


READERS: dict[str, Callable[[Path], Iterator[Seen]]] = {
    "sharegpt": llama_factory,
    "parquet": hugging_face,
    "webdataset": web_dataset,
    "qwen": qwen,
    # LLaVA's loader asks for the same, and for less.
    "llava": qwen,
}


def compare(export: Path, samples: dict[str, Sample]) -> int:
    """How many rows the tool read, each with the turns and images that the pool has under its id.

    Texts of samples with geometry are compared up to the first place.

    Raises:
        ValueError: on the first row that differs.
    """
    artifact = Artifact.open(export, "export")
    count = 0
    for id, texts, images in READERS[artifact.manifest["config"]["format"]](export):
        sample = samples[id]
        wanted = [turn.text.strip() for turn in sample.turns]
        for text, want in zip(texts, wanted, strict=True):
            start, mark, _ = want.partition("<region>")
            if not (text.startswith(start) if mark else text == want):
                raise ValueError(f"{id}: {text!r} in place of {want!r}")
        pictures = [picture.decode() for picture in sample.pictures]
        if [p.tobytes() for p in pictures] != [image.convert("RGB").tobytes() for image in images]:
            raise ValueError(f"{id}: other images")
        count += 1
    if count != artifact.counts["exported"]:
        raise ValueError(f"{count} rows read, {artifact.counts['exported']} exported")
    return count


def main(export: Path, pool: Path) -> None:
    samples = {sample.id: sample for sample in open_pool(pool, skips=Skips())}
    print(f"{export}: {compare(export, samples)} rows read back, equal in texts and images")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
