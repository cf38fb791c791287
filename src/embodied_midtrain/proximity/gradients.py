"""What each sample of a batch would change in an adapter: its gradient, projected, without ever being formed.

The gradient of a linear layer's weight is, for one sample, the sum over its tokens of d x^T: d is the gradient of the
layer's output, x its input. Projected from both sides with fixed random matrices B [out, r] and A [in, r] it is the sum
of (B^T d)(A^T x)^T, r x r numbers, for all samples of a batch at once (LoGra, arXiv 2405.13954). That is the gradient
of a LoRA at its start, whose A is random and whose B is 0, projected on the other side too. The weights themselves
need no gradient, so that this costs less than training on the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.precision import Precision, quick_inference
from embodied_midtrain.features.extractor import batches_of
from embodied_midtrain.features.sharing import share_vision


class Gradients:
    """Gradients of the language loss by sample; use it as a context, in which the backbone's weights are frozen.

    Attributes:
        dim: numbers of a gradient.

    Args:
        rank: r; where a layer has fewer inputs or outputs, these are only turned, and nothing is lost.
        last: share of the language model's layers, counted from the end, that the adapter is in; above 0.
        seed: of the random matrices.

    Raises:
        StageError: where the backbone has no linear layers to look at.
    """

    def __init__(self, backbone: Backbone, *, rank: int, last: float, seed: int, precision: Precision) -> None:
        self._backbone = backbone
        self._precision = precision
        self._watched = _linear_layers(backbone, last)
        if not self._watched:
            raise StageError(f"{backbone.name}: its language model has no layers of linear weights to look at")
        random = torch.Generator().manual_seed(seed)
        self._inward = [_directions(layer.in_features, rank, random) for layer in self._watched]
        self._outward = [_directions(layer.out_features, rank, random) for layer in self._watched]
        self._found: list[Tensor | None] = [None] * len(self._watched)
        self._inside = ExitStack()
        sizes = zip(self._outward, self._inward, strict=True)
        self.dim = sum(out.shape[1] * inner.shape[1] for out, inner in sizes)

    def __enter__(self) -> Self:
        base, device = self._backbone.base, self._backbone.device
        learning = [p for p in base.parameters() if p.requires_grad]
        base.requires_grad_(False)
        self._inside.callback(lambda: [p.requires_grad_() for p in learning])
        self._inside.enter_context(quick_inference(base, device, self._precision))
        self._inward = [directions.to(device) for directions in self._inward]
        self._outward = [directions.to(device) for directions in self._outward]
        for number, layer in enumerate(self._watched):
            self._inside.callback(layer.register_forward_hook(self._hook(number)).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._inside.close()

    def of(self, rows: Sequence[Rendered], batch_size: int) -> Tensor:
        """Of each row's loss, a sum over its learnt tokens (no cosine asks for its scale): float32 [rows, dim].

        Zeros for a row with nothing to learn; not finite where the arithmetic was not.
        """
        made = torch.zeros(len(rows), self.dim)
        some = [n for n, row in enumerate(rows) if any(row.learnt[1:])]
        seen = share_vision(self._backbone, [rows[n] for n in some], batch_size)
        for chosen in batches_of([len(row) for row in seen], batch_size):
            made[[some[n] for n in chosen]] = self._batch([seen[n] for n in chosen]).cpu()
        return made

    def _batch(self, rows: Sequence[Rendered]) -> Tensor:
        with torch.enable_grad():
            logits, targets = self._backbone.answer_logits(self._backbone.collate(rows))
            F.cross_entropy(logits.float(), targets, reduction="sum").backward()
        parts = [part for part in self._found if part is not None]
        self._found = [None] * len(self._watched)
        return torch.cat(parts, 1)

    def _hook(self, number: int) -> Any:
        def look(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                # Nothing before this layer is watched: the backward pass ends here.
                output.requires_grad_()
            x = given[0].detach()
            read = x @ self._inward[number].to(x.dtype)

            def take(gradient: Tensor) -> None:
                said = gradient @ self._outward[number].to(gradient.dtype)
                # The sum over tokens is small and in full precision.
                with torch.autocast(gradient.device.type, enabled=False):
                    part = (said.float().transpose(1, 2) @ read.float()).flatten(1)
                before = self._found[number]
                # A layer may be used more than once.
                self._found[number] = part if before is None else before + part

            output.register_hook(take)

        return look


def _linear_layers(backbone: Backbone, last: float) -> list[nn.Linear]:
    layers: Sequence[nn.Module] = list(getattr(backbone.language, "layers", ()))
    chosen = layers[len(layers) - math.ceil(last * len(layers)) :]
    return [module for layer in chosen for module in layer.modules() if isinstance(module, nn.Linear)]


def _directions(size: int, rank: int, random: torch.Generator) -> Tensor:
    """[size, min(rank, size)]: orthogonal, random, and so long that lengths stay what they were on average."""
    kept = min(rank, size)
    made: Tensor = torch.linalg.qr(torch.randn(size, kept, generator=random))[0]
    return made * math.sqrt(size / kept)
