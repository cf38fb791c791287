"""What an audit may look at beside the features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from embodied_midtrain.artifacts import Artifact, Skips
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.episodes import Robots
from embodied_midtrain.samples import Pool


@dataclass(frozen=True)
class Given:
    """What is None is not looked at, and said so.

    Attributes:
        selection: the ranking that is audited.
        others: rankings of the same pool, such as one under another robot prompt, by name.
        samples, samples_skips: the pool that the features are of, and what its reader leaves out.
        robots: the robot data that the target's features are of.
        backbone: that both were made with.
        image_pool, image_target: features of both with pooling "image", where somebody has made them.
    """

    selection: Artifact | None = None
    others: Mapping[str, Artifact] = field(default_factory=dict)
    samples: Pool | None = None
    samples_skips: Skips = field(default_factory=Skips)
    robots: Robots | None = None
    backbone: Backbone | None = None
    image_pool: Artifact | None = None
    image_target: Artifact | None = None

    def inputs(self) -> dict[str, Artifact | str]:
        found: dict[str, Artifact | str | None] = {
            "selection": self.selection,
            **{f"other {name}": other for name, other in self.others.items()},
            "samples": self.samples.fingerprint() if self.samples is not None else None,
            "robots": self.robots.fingerprint() if self.robots is not None else None,
            "backbone": self.backbone.fingerprint() if self.backbone is not None else None,
            "image pool": self.image_pool,
            "image target": self.image_target,
        }
        return {name: value for name, value in found.items() if value is not None}
