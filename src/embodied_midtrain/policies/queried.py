"""Full and LoRA mode: the backbone learns together with a query token and the head."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageRun, write_json
from embodied_midtrain.midtraining.room import in_this_process, refuse_too_large
from embodied_midtrain.policies.encoder import with_vision
from embodied_midtrain.policies.frames import FrameStore, Goals, Make
from embodied_midtrain.policies.joint import ImageText, Joint
from embodied_midtrain.policies.memory import ADVICE, estimate
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.policies.preprocess import Preprocessor, random_crop
from embodied_midtrain.policies.vision_cache import VisionCache
from embodied_midtrain.progress import console
from embodied_midtrain.training.ahead import Ahead
from embodied_midtrain.training.loop import Loss, Trainee, train_mode
from embodied_midtrain.training.lora import let_learn, merge_lora
from embodied_midtrain.training.order import draws

if TYPE_CHECKING:
    from embodied_midtrain.backbones.backbone import Backbone, Rendered
    from embodied_midtrain.policies.settings import FinetuneConfig


def maker(backbone: Backbone, preprocessor: Preprocessor, config: FinetuneConfig, cache: Path | None) -> Make:
    """Frames of an episode -> resized frames; where vision does not learn, the tower's output in their place."""
    if "vision" in config.train or config.crop < 1.0 or not backbone.caches_vision:
        return lambda frames, _: preprocessor.resize(frames)
    seeing = VisionCache(cache, backbone, preprocessor, config.micro_batch)

    def make(frames: NDArray[np.uint8], instructions: list[str]) -> NDArray[np.generic]:
        _, seen = seeing(frames, instructions[0])
        assert seen is not None, "this backbone's vision output is cached"
        return seen.numpy()

    return make


def beside(run: StageRun, backbone: Backbone, data: ImageText, config: FinetuneConfig) -> Joint:
    """The image-text samples that train beside the frames."""
    return Joint(
        run,
        backbone,
        data,
        config.joint,
        steps=config.steps,
        batch=config.batch,
        micro_batch=config.micro_batch,
        seed=config.seed,
        keep_vision="vision" not in config.train and backbone.caches_vision,
    )


def trainee(
    run: StageRun, policy: Policy, store: FrameStore, config: FinetuneConfig, joint: Joint | None = None
) -> Trainee:
    """The head with all that is new in it, and the chosen parts of the backbone.

    Raises:
        StageError: where training would not fit into memory.
    """
    net, backbone = policy.net, policy.backbone
    groups = backbone.groups()
    chosen = [parameter for name in config.train for parameter in groups[name]]
    lora = config.mode == "lora"
    let_learn(backbone.base, chosen, lora=lora, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    train_mode(backbone.base)
    net.train()
    goals = Goals(policy.codec, store, backbone.device)
    batches = Batches(policy, store, config)
    _, rows = batches.rows(0, slice(0, config.micro_batch))
    found = in_this_process(estimate(policy, rows, config, None if joint is None else joint.mixture), backbone.device)
    line = refuse_too_large(found, backbone.device, ADVICE)
    write_json(run.log("memory.json"), {**vars(found), "total": found.total})
    console.print(line)
    ahead = Ahead(lambda step: (batches.step(step), [] if joint is None else joint.step(step)), config.steps)

    def losses(step: int) -> Iterator[Loss]:
        frames, samples = ahead.get(step)
        for index, rows in frames:
            loss = net.loss(backbone, rows, goals.at(index), config)
            yield Loss(loss * (len(index) / config.batch), len(index), what=store.describe(index), part="actions")
        if joint is not None:
            yield from joint.losses(samples)

    def describe(step: int) -> str:
        frames = store.describe(batches.order[step])
        return frames if joint is None else f"{frames}, and {joint.describe(step)}"

    weights = {f"net.{name}": p for name, p in net.named_parameters()}
    fresh = frozenset(weights)
    rates = {} if config.head_lr is None else dict.fromkeys(weights, config.head_lr / config.lr)
    weights |= {f"backbone.{name}": p for name, p in backbone.base.named_parameters() if p.requires_grad}
    return Trainee(
        weights,
        losses,
        describe,
        "frames",
        lambda: ahead.waited,
        rates=rates,
        fresh=fresh,
        advice=f"The estimate was:\n{found.table()}\n{ADVICE}",
        close=ahead.close,
    )


def merge(policy: Policy, store: FrameStore) -> None:
    """Fold LoRA into the backbone, with proof on two pictures."""
    policy.backbone.model.eval()
    side = policy.preprocessor.image
    pictures = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    rows = policy.preprocessor.render(policy.backbone, pictures, store.instructions[:1] * 2)
    merge_lora(policy.backbone.base, lambda: policy.net.probe(policy.backbone, rows))


def merged(policy: Policy, store: FrameStore) -> Policy:
    """A copy with LoRA folded in; the policy itself can go on learning."""
    copied = copy.deepcopy(policy)
    merge(copied, store)
    return copied


class Batches:
    """What each step trains on: the frames, cropped and captioned anew in every epoch."""

    def __init__(self, policy: Policy, store: FrameStore, config: FinetuneConfig) -> None:
        self.policy = policy
        self.store = store
        self.config = config
        self.order = draws(len(store), config.steps * config.batch, config.seed).reshape(config.steps, config.batch)
        self.paraphrases = store.paraphrases()
        self._tokens: dict[str, Rendered] = {}

    def step(self, step: int) -> list[tuple[NDArray[np.int64], list[Rendered]]]:
        """The micro-batches of a step."""
        size = self.config.micro_batch
        return [self.rows(step, slice(at, at + size)) for at in range(0, self.config.batch, size)]

    def rows(self, step: int, part: slice) -> tuple[NDArray[np.int64], list[Rendered]]:
        """Indices of a micro-batch's frames, and its rows."""
        index = self.order[step, part]
        first = step * self.config.batch + part.start
        epochs = (first + np.arange(len(index))) // len(self.store)
        texts = [self._instruction(int(e), int(n)) for e, n in zip(self.store.episode[index], epochs, strict=True)]
        data = self.store.rows(index)
        if data.dtype != np.uint8:
            rows = [self._text_only(text) for text in texts]
            return index, with_vision(rows, torch.from_numpy(data))
        frames = np.asarray(data)
        if self.config.crop < 1.0:
            generators = [np.random.default_rng([self.config.seed, first + n]) for n in range(len(index))]
            frames = np.stack(
                [random_crop(f, self.config.crop, rng) for f, rng in zip(frames, generators, strict=True)]
            )
        return index, self.policy.preprocessor.render(self.policy.backbone, frames, texts)

    def _instruction(self, episode: int, epoch: int) -> str:
        """One of the task's instructions, the same for all frames of an episode within an epoch."""
        choices = self.paraphrases[self.store.tasks[episode]]
        return choices[int(np.random.default_rng([self.config.seed, episode, epoch]).integers(len(choices)))]

    def _text_only(self, instruction: str) -> Rendered:
        if instruction not in self._tokens:
            side = self.policy.preprocessor.image
            blank = np.zeros((1, side, side, 3), np.uint8)
            self._tokens[instruction] = self.policy.preprocessor.render(self.policy.backbone, blank, [instruction])[0]
        return self._tokens[instruction]
