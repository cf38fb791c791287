"""Frozen mode: states of every frame once, then a reader trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embodied_midtrain.policies.encoder import encode
from embodied_midtrain.policies.frames import FrameStore, Goals, Make
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.policies.preprocess import Preprocessor
from embodied_midtrain.policies.reader import Sight
from embodied_midtrain.policies.reading import ReaderNet
from embodied_midtrain.policies.vision_cache import VisionCache
from embodied_midtrain.training.loop import Loss, Trainee
from embodied_midtrain.training.order import draws

if TYPE_CHECKING:
    from embodied_midtrain.backbones.backbone import Backbone, Rendered
    from embodied_midtrain.policies.settings import FinetuneConfig


def maker(backbone: Backbone, preprocessor: Preprocessor, config: FinetuneConfig, cache: Path | None) -> Make:
    """Frames of an episode -> what the reader gets of them, float16 [n, size]."""
    backbone.model.eval()
    seeing = VisionCache(cache, backbone, preprocessor, config.micro_batch)

    def make(frames: NDArray[np.uint8], instructions: list[str]) -> NDArray[np.generic]:
        rows, seen = seeing(frames, instructions[0])
        parts = []
        for at in range(0, len(frames), config.micro_batch):
            part = slice(at, at + config.micro_batch)
            kept = None if seen is None else seen[part]
            flat, _ = look(backbone, rows[part], config, kept)
            parts.append(flat.cpu())
        return torch.cat(parts).numpy()

    return make


def trainee(policy: Policy, store: FrameStore, config: FinetuneConfig) -> Trainee:
    """The reader and its head on the stored states."""
    net = policy.net
    assert isinstance(net, ReaderNet)
    device = next(net.parameters()).device
    net.reader.standardise(*(t.to(device) for t in statistics(store)))
    net.train()
    goals = Goals(policy.codec, store, device)
    order = draws(len(store), config.steps * config.batch, config.seed).reshape(config.steps, config.batch)

    def losses(step: int) -> Iterator[Loss]:
        for at in range(0, config.batch, config.micro_batch):
            index = order[step, at : at + config.micro_batch]
            loss = net.loss_of(torch.from_numpy(store.rows(index)).to(device), goals.at(index), config)
            yield Loss(loss * (len(index) / config.batch), len(index))

    return Trainee(
        weights=dict(net.named_parameters()),
        losses=losses,
        describe=lambda step: store.describe(order[step]),
        unit="frames",
    )


def look(
    backbone: Backbone, rows: Sequence[Rendered], config: FinetuneConfig, seen: Tensor | None = None
) -> tuple[Tensor, Sight]:
    """`encode` as the config has it."""
    return encode(backbone, rows, layer=config.layer, text_tokens=config.text_tokens, cells=config.cells, seen=seen)


def sight_of(backbone: Backbone, preprocessor: Preprocessor, config: FinetuneConfig) -> Sight:
    """What the reader is going to get of a frame, by the example of a blank one."""
    blank = np.zeros((1, preprocessor.image, preprocessor.image, 3), np.uint8)
    return look(backbone, preprocessor.render(backbone, blank, ["move"]), config)[1]


def statistics(store: FrameStore) -> tuple[Tensor, Tensor]:
    """Mean and variance of each column of the stored data: [size], [size]."""
    total = np.zeros(store.data[0].shape[1], np.float64)
    for part in store.data:
        total += part.astype(np.float32).sum(axis=0, dtype=np.float64)
    mean = total / len(store)
    squares = np.zeros_like(total)
    for part in store.data:
        squares += np.square(part.astype(np.float32) - mean.astype(np.float32)).sum(axis=0, dtype=np.float64)
    return torch.from_numpy(mean).float(), torch.from_numpy(squares / len(store)).float()
