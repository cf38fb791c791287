"""The trained parts of a policy beside its backbone: how rows become a loss, and an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.policies.heads import Answer, Goal

if TYPE_CHECKING:
    from embodied_midtrain.policies.settings import FinetuneConfig


class Net(nn.Module, ABC):
    """One kind of head with what it asks the backbone for. Rows are of `Preprocessor.render` (or `with_vision`)."""

    @abstractmethod
    def loss(self, backbone: Backbone, rows: Sequence[Rendered], goal: Goal, config: FinetuneConfig) -> Tensor:
        """The mean over the rows of what training makes small."""

    @abstractmethod
    def answer(self, backbone: Backbone, rows: Sequence[Rendered]) -> Answer:
        """What the policy says; gradients where they are wanted. The same for a row whatever stands beside it."""

    def probe(self, backbone: Backbone, rows: Sequence[Rendered]) -> Tensor:
        """Numbers by which two states of the weights are compared; they move smoothly with the weights."""
        return self.answer(backbone, rows)[0]

    def save(self, folder: Path) -> None:
        """Write what is not in the weights into the policy's folder."""
