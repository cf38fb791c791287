"""Data sets by name: the files they come in, the fields that each has, how they write coordinates.

The eight sources of EmbodiedMidtrain (section 4: LAION-400M, CC-12M, LLaVA-Instruct-665k and VCR as general ones,
RefSpatial, EmbSpatial-Bench, Robo2VLM and RoboPoint as embodied ones), and one plain format per kind of file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from embodied_midtrain.config import ConfigError, did_you_mean
from embodied_midtrain.sources import vcr
from embodied_midtrain.sources.fields import Fields
from embodied_midtrain.sources.files import Repeats

Kind = Literal["conversations", "webdataset", "parquet", "folder"]


@dataclass(frozen=True)
class Format:
    """How a data set is read.

    Attributes:
        kind: of its files.
        group: its nature, the colour of its marks in a report.
        repeats: what a second record under an id means.
        rewrite: for records of a shape of their own.
        about: what it is.
        home: where it is to be had.
    """

    kind: Kind
    about: str
    fields: Fields = field(default_factory=Fields)
    group: str = ""
    licence: str = ""
    repeats: Repeats = "skip"
    rewrite: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    home: str = ""


_CAPTIONED = Fields(conversation=(), question=(), source=(), licence=())

FORMATS: dict[str, Format] = {
    "conversations": Format("conversations", "JSON or JSONL of conversations: LLaVA, ShareGPT, Qwen-VL, messages"),
    "webdataset": Format("webdataset", "tar shards: a picture and a .txt or .json member for each key"),
    "parquet": Format("parquet", "Parquet or Arrow tables, as Hugging Face stores data sets"),
    "folder": Format("folder", "images with NAME.txt or NAME.json beside them, or metadata.jsonl / metadata.csv"),
    "laion-400m": Format(
        "webdataset",
        "LAION-400M as img2dataset fetches it (jpg, txt, json)",
        _CAPTIONED,
        "web",
        "CC-BY-4.0 metadata",
        home="https://laion.ai/blog/laion-400-open-dataset/",
    ),
    "cc-12m": Format(
        "webdataset",
        "Conceptual 12M, with its own or BLIP's captions, as img2dataset fetches it",
        _CAPTIONED,
        "web",
        home="https://github.com/google-research-datasets/conceptual-12m",
    ),
    "llava-665k": Format(
        "conversations",
        "llava_v1_5_mix665k.json; ids repeat across its tasks, boxes are in [0, 1]",
        Fields(source=(), coordinates="unit"),
        "general",
        repeats="number",
        home="https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K",
    ),
    "vcr": Format(
        "conversations",
        "Visual Commonsense Reasoning: train.jsonl beside vcr1images",
        Fields(source=(), conversation=(), options=()),
        "general",
        "VCR licence",
        rewrite=vcr.rewrite,
        home="https://visualcommonsense.com/download/",
    ),
    "refspatial": Format(
        "conversations",
        "RefSpatial: conversations, points in [0, 1]",
        Fields(coordinates="unit"),
        "embodied",
        repeats="number",
        home="https://huggingface.co/datasets/JingkunAn/RefSpatial",
    ),
    "embspatial-bench": Format(
        "conversations",
        "EmbSpatial-Bench: question, answer_options, number of the answer, image in base64",
        Fields(
            id=("question_id", "id"),
            source=(),
            conversation=(),
            caption=(),
            options=("answer_options",),
            base64=True,
        ),
        "embodied",
        home="https://huggingface.co/datasets/FlagEval/EmbSpatial-Bench",
    ),
    "robo2vlm": Format(
        "parquet",
        "Robo2VLM-1: question, choices, correct_answer, image; hf://datasets/keplerccc/Robo2VLM-1/**/*.parquet",
        Fields(source=(), conversation=(), caption=(), answer=("correct_answer",), options=("choices",)),
        "embodied",
        home="https://huggingface.co/datasets/keplerccc/Robo2VLM-1",
    ),
    "robopoint": Format(
        "conversations",
        "RoboPoint: conversations, points in [0, 1]; hf://datasets/wentao-yuan/robopoint-data",
        Fields(source=(), coordinates="unit"),
        "embodied",
        repeats="number",
        home="https://huggingface.co/datasets/wentao-yuan/robopoint-data",
    ),
}


def named(name: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: where there is none; the message names the nearest.
    """
    if name not in FORMATS:
        raise ConfigError(f"there is no format {name!r}; {did_you_mean(name, FORMATS)}")
    return FORMATS[name]
