"""A backbone and threads that decode: windows of rows in, features out. The same in every engine.

What makes it quicker than the plain loop: no LM head, rows of like length batched together, the vision tower run
once for a picture that several questions share, and pictures decoded in threads while the last batch computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.precision import Precision, autocast, quick_inference
from embodied_midtrain.episodes import ACTION_PROMPT
from embodied_midtrain.features.items import Item
from embodied_midtrain.features.pooling import Pooling, pool_states
from embodied_midtrain.features.sharing import apart, joined_states, share_prefixes, share_vision
from embodied_midtrain.samples import BadSample

PADDING = 0.1
"""Share of a row that may be padding: a smaller batch costs less than computing on it (32 rows: 25 % quicker)."""


@dataclass(frozen=True)
class EmbedConfig:
    """How features are made."""

    pooling: Pooling = "mean"
    """Which tokens' states are averaged: all, the last one, the image's, the text's, or of the text the prompt's or the
    answer's (robot frames have none)."""
    layer: int = -1
    """Hidden layer that is read; -1 is the last, after the final norm."""
    layers: tuple[int, ...] = ()
    """Several layers, read in one pass, whose features stand one after the other in a row: for 'emt probe'. 0 is what
    the language model reads."""
    batch_size: int = 32
    """Rows in one forward pass."""
    part_size: int = 256
    """Rows in one shard: what a killed run loses at most, for each worker."""
    frames_per_episode: int = 5
    """Frames taken of each robot episode, evenly over its length."""
    prompt: str = ACTION_PROMPT
    """The user text that goes with a robot frame."""
    precision: Precision = "auto"
    """Of the arithmetic; auto: bf16 where the processor multiplies it natively."""

    @property
    def read(self) -> tuple[int, ...]:
        """The layers that are read."""
        return self.layers or (self.layer,)

    def check_layers(self, layers: int) -> None:
        """Raise ValueError on layers that a language model of so many has not."""
        if wrong := [n for n in self.read if not -1 <= n <= layers]:
            raise ValueError(f"layers {wrong}: this backbone has 0 (its input) to {layers}, and -1, the last")


@dataclass(frozen=True)
class Embedded:
    """What became of a window.

    Attributes:
        keys: (source, id) of the rows that could be embedded, in order.
        features: float16 [len(keys), dim].
        faults: number in the window, reason and detail of each of the others.
    """

    keys: list[tuple[str, str]]
    features: NDArray[np.float16]
    faults: list[tuple[int, str, str]]


Started = list[tuple[tuple[str, str], "Future[Rendered]"]]


class Extractor:
    """Use it as a context: inside, the backbone's weights are in the precision of the arithmetic.

    Args:
        decoders: threads that decode pictures.
        threads: that compute on a CPU; 0 leaves torch's own choice.
    """

    def __init__(self, backbone: Backbone, config: EmbedConfig, *, decoders: int, threads: int = 0) -> None:
        self._backbone = backbone
        self._config = config
        self._decoders = decoders
        self._threads = threads
        self._inside = ExitStack()

    def __enter__(self) -> Self:
        if self._threads:
            self._inside.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(self._threads)
        backbone, config = self._backbone, self._config
        self._inside.enter_context(quick_inference(backbone.base, backbone.device, config.precision))
        self._pool = self._inside.enter_context(ThreadPoolExecutor(self._decoders))
        return self

    def __exit__(self, *_: object) -> None:
        self._inside.close()

    def begin(self, items: Sequence[Item]) -> Started:
        """Start decoding a window."""
        return [(item.key, self._pool.submit(item.render, self._backbone)) for item in items]

    def finish(self, started: Started) -> Embedded:
        """Compute what `begin` has started."""
        keys, rendered, faults = [], [], []
        for number, (key, future) in enumerate(started):
            try:
                rendered.append(future.result())
                keys.append(key)
            except BadSample as error:
                faults.append((number, error.reason, error.detail))
        return Embedded(keys, encode(self._backbone, rendered, self._config), faults)


class Pipeline:
    """While one window computes, the next is decoded: each call returns the result of the call before.

    Called with None after the last window.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._before: Started | None = None

    def __call__(self, items: Sequence[Item] | None) -> Embedded | None:
        following = None if items is None else self._extractor.begin(items)
        started, self._before = self._before, following
        return None if started is None else self._extractor.finish(started)


@torch.inference_mode()
def encode(backbone: Backbone, rows: Sequence[Rendered], config: EmbedConfig) -> NDArray[np.float16]:
    """Features of ready rows, in their order: float16 [len(rows), dim]."""
    with autocast(backbone.device, config.precision):
        return _encode(backbone, rows, config)


def _encode(backbone: Backbone, rows: Sequence[Rendered], config: EmbedConfig) -> NDArray[np.float16]:
    out = np.zeros((len(rows), len(config.read), backbone.hidden), dtype=np.float16)
    shared = share_prefixes(share_vision(backbone, rows, config.batch_size), backbone.image_token_id)
    for chosen in batches_of([len(one.row) for one in shared], config.batch_size):
        some = [shared[i] for i in chosen]
        batch, states = joined_states(backbone, some, config.read)
        for place, layer in enumerate(states):
            for numbers, own, ids, real, learnt in apart(some, batch, layer):
                pooled = pool_states(own, ids, real, learnt, backbone.image_token_id, config.pooling)
                out[numbers, place] = pooled.to(torch.float16).cpu().numpy()
    return out.reshape(len(rows), len(config.read) * backbone.hidden)


def batches_of(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows of like length together, at most `size` of them and none with more than `PADDING` of it padding.

    The order of equal lengths is fixed, so that a resumed run forms the same batches.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        last = batches[-1] if batches else []
        if last and len(last) < size and lengths[row] * (1 - PADDING) <= lengths[last[0]]:
            last.append(row)
        else:
            batches.append([row])
    return batches
