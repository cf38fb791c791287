"""The settings of the compact backbone's training."""

from __future__ import annotations

from dataclasses import dataclass, field

from embodied_midtrain.backbones.compact.weights import CompactSettings


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
    points: float = 0.6
    """How likely each of these is one for a place rather than one drawn from all kinds."""
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
