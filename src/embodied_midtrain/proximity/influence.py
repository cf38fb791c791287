"""Whether learning a sample lowers the ACTION loss: LESS (arXiv 2402.04333) with robot actions as the target.

A sample's score is the cosine of its gradient and those of the target's action loss, both with respect to one adapter
(`proximity.gradients`). The action loss is the next-token loss of actions written as numbers (`robots.action_text`): a
policy's head would have parameters that no image-text sample touches, whereas here both gradients are of one model's
words. Under a backbone that was tuned on such text the numbers mean something to it, as LESS wants by its warm-up.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from embodied_midtrain.artifacts import Artifact, Skips, StageError, StageRun, read_json
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.episodes import ActionSpec, Robots
from embodied_midtrain.proximity.gradients import Gradients
from embodied_midtrain.robots.action_text import ACTIONS, ActionTextConfig, action_samples
from embodied_midtrain.robots.actions import ActionNormaliser, check_specs
from embodied_midtrain.samples import BadSample

TARGET = "target"
"""Key of the part, and name of the file, that keep the target's gradients."""
EACH = 8
"""Frames taken of an episode."""
TOGETHER = 64
"""Frames whose gradients are held at once."""


@dataclass(frozen=True)
class InfluenceConfig:
    """How gradients are taken and compared."""

    rank: int = 8
    """Numbers that each side of a linear layer's gradient is projected to: a layer's gradient is the square of it."""
    last: float = 1.0
    """Share of the language model's layers, counted from the end, whose gradients count; fewer are quicker."""
    over: Literal["max", "mean"] = "max"
    """Of the cosines with the target's tasks: the largest (as LESS), or their mean."""
    frames: int = 64
    """Frames of each task, about: of episodes evenly over the data."""
    groups: int = 64
    """Most groups of tasks; where there are more tasks, several share one."""
    bins: int = 256
    """Of each dimension of an action, where no robot text says it."""
    projection_seed: int = 0
    """Of the random projection."""

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if min(self.rank, self.frames, self.groups) < 1 or self.bins < 2 or not 0 < self.last <= 1:
            raise ValueError(
                f"rank {self.rank}, frames {self.frames}, groups {self.groups}, bins {self.bins} and last {self.last}: "
                "wanted at least 1, 1, 1 and 2, and a share above 0 and at most 1"
            )


@dataclass(frozen=True)
class ActionGradients:
    """What lowers the action loss.

    Attributes:
        agreement: by group of tasks, the cosine of the mean gradient over half of its episodes with that over the
            other half: where it is near 0, there is no direction to select by (0 where a group has one episode).
        means: of each group, the mean of its frames' unit gradients, made a unit itself [groups, dim].
    """

    agreement: dict[str, float]
    means: NDArray[np.float32]

    def scores(self, gradients: Tensor, over: Literal["max", "mean"]) -> NDArray[np.float32]:
        """Of gradients [rows, dim]: [rows], NaN where one is not finite or is zero."""
        # By numpy: torch would multiply in the half precision of the context that the gradients are made in.
        cosines = (gradients / gradients.norm(dim=1, keepdim=True)).numpy() @ self.means.T
        found: NDArray[np.float32] = cosines.max(1) if over == "max" else cosines.mean(1)
        return found


def action_gradients(
    run: StageRun,
    gradients: Gradients,
    backbone: Backbone,
    target: Robots,
    config: InfluenceConfig,
    *,
    prompt: str,
    batch_size: int,
    spoken: Artifact | None,
) -> ActionGradients:
    """The target's; kept in the artifact, so that a run that goes on does not compute them again.

    Args:
        prompt: the user text that goes with a frame.
        spoken: the robot text that the backbone was tuned on: its bins are what numbers mean to it.

    Raises:
        StageError: where no frame can be used, or the target's actions mean another thing than those of `spoken`.
    """
    part = run.part(TARGET)
    if part is None:
        skips = Skips()
        survey = _survey(target, config, prompt, spoken)
        groups = sorted(set(survey.group.values()))
        sums, used = torch.zeros(2, len(groups), gradients.dim), Counter[str]()
        rows = _rows(target, survey, backbone, skips)
        while some := list(itertools.islice(rows, TOGETHER)):
            made = gradients.of([row for *_, row in some], batch_size)
            lengths = made.norm(dim=1)
            for (group, half, _), one, length in zip(some, made, lengths, strict=True):
                if length.isfinite() and length > 0:
                    sums[half, groups.index(group)] += one / length
                    used[group] += 1
                else:
                    skips.add("nan gradient", f"{target.name}/{group}")
        kept = [n for n, name in enumerate(groups) if used[name]]
        if not kept:
            raise StageError(f"no frame of {target.name} gives a gradient (skipped: {skips.summary()})")
        sums = sums[:, kept]
        means = F.normalize(sums.sum(0)).numpy()
        facts = {
            "groups": [groups[n] for n in kept],
            "frames": [used[groups[n]] for n in kept],
            "halves": F.cosine_similarity(sums[0], sums[1]).tolist(),
        }
        part = run.commit_part(TARGET, facts, {f"{TARGET}.npy": lambda path: np.save(path, means)}, skips)
    agreement = dict(zip(part["groups"], part["halves"], strict=True))
    return ActionGradients(agreement, np.load(run.file(f"{TARGET}.npy")))


@dataclass(frozen=True)
class _Survey:
    """What is looked at of a target: the numbers of episodes, the group of each task, and how actions are written."""

    episodes: frozenset[int]
    group: dict[str, str]
    text: ActionTextConfig
    normaliser: ActionNormaliser


def _survey(target: Robots, config: InfluenceConfig, prompt: str, spoken: Artifact | None) -> _Survey:
    places: dict[str, list[int]] = defaultdict(list)

    def actions() -> Iterator[NDArray[np.float32]]:
        for number, episode in enumerate(target):
            places[episode.task].append(number)
            yield episode.actions

    bins = config.bins
    fitted = ActionNormaliser.fit(actions())
    if spoken is not None:
        facts = read_json(spoken.file(ACTIONS))
        if "spec" not in facts:
            raise StageError(
                f"{spoken.path} does not say what its actions mean: give its command again in a new folder"
            )
        spec = ActionSpec.from_json(facts["spec"])
        check_specs(spec, target.spec, wanted_by=str(spoken.path), given_by=target.name)
        fitted, bins = ActionNormaliser.from_json(facts["range"]), int(facts["bins"])
    wanted = -(-config.frames // EACH)
    chosen = {
        own[n]
        for own in places.values()
        for n in np.linspace(0, len(own) - 1, min(wanted, len(own))).round().astype(int).tolist()
    }
    tasks = sorted(places)
    group = {task: tasks[n % config.groups] for n, task in enumerate(tasks)}
    each = min(EACH, config.frames)
    return _Survey(frozenset(chosen), group, ActionTextConfig(each, bins, prompt), fitted)


def _rows(target: Robots, survey: _Survey, backbone: Backbone, skips: Skips) -> Iterator[tuple[str, int, Rendered]]:
    """Group, half (every other episode of the group) and row of each chosen frame."""
    seen = Counter[str]()
    for number, episode in enumerate(target):
        if number not in survey.episodes:
            continue
        group = survey.group[episode.task]
        half = seen[group] % 2
        seen[group] += 1
        for sample in action_samples([episode], survey.text, survey.normaliser, skips):
            try:
                yield group, half, backbone.render(sample)
            except BadSample as error:
                skips.add(error.reason, "/".join(sample.key), error.detail)
