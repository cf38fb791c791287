"""`emt robots as-text`: robot frames as image-text samples whose answers are the actions, written as numbers.

What a VLM is tuned on to be "VLA-conditioned" (EmbodiedMidtrain, table 2). As RT-2 (arXiv 2307.15818) and OpenVLA
write them: each dimension in 256 even bins between its 1st and 99th percentile, the bins' numbers with spaces between.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embodied_midtrain.artifacts import Artifact, Skips, StageError, StageRun, open_stage, write_json
from embodied_midtrain.episodes import ACTION_PROMPT, BadEpisode, Episode, Robots, target_prompt
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import Picture, Sample, question
from embodied_midtrain.sources.opening import POOL_STAGE
from embodied_midtrain.sources.table import write_table

SOURCE = "robot-actions"
ACTIONS = "actions.json"
"""In the artifact: what the numbers stand for."""
EPISODES = 64
"""Of one file: what a killed run loses at most."""


@dataclass(frozen=True)
class ActionTextConfig:
    """How frames become samples."""

    frames_per_episode: int = 8
    """Frames taken of each episode, evenly over its length."""
    bins: int = 256
    """Of each dimension."""
    prompt: str = ACTION_PROMPT
    """The user text; the policy's."""

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        target_prompt("", self.prompt)
        if self.bins < 2 or self.frames_per_episode < 1:
            raise ValueError(f"{self.bins} bins and {self.frames_per_episode} frames: wanted at least 2 and 1")


def action_text(action: NDArray[np.float32], normaliser: ActionNormaliser, bins: int) -> str:
    """One action [width] as the numbers of its bins."""
    scaled = np.clip(normaliser.apply(action[None])[0], -1, 1)
    return " ".join(str(n) for n in np.minimum(((scaled + 1) / 2 * bins).astype(int), bins - 1).tolist())


def robots_as_text(
    out: Path, config: ActionTextConfig, *, target: Robots, skips: Skips | None = None, overwrite: bool = False
) -> Artifact:
    """A pool of one source, robot-actions, whose samples are frames with their actions as text.

    Raises:
        StageError: where no episode can be used.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    with open_stage(out, POOL_STAGE, config, {"target": target.fingerprint()}, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        actions = [episode.actions for episode in target]
        if not actions:
            raise StageError(f"{target.name} has no episode that can be used: nothing to write as text")
        normaliser = ActionNormaliser.fit(actions)
        samples = 0
        with progress_bar("actions as text", len(actions)) as bar:
            for number, episodes in enumerate(_parts(target)):
                name = f"{SOURCE}-{number:06d}"
                record = run.part(name) or _commit(run, name, episodes, config, normaliser)
                samples += record["samples"]
                bar.advance(len(episodes))
        if not samples:
            raise StageError(f"no frame of {target.name} can be read: nothing to write as text")
        facts = {"range": normaliser.to_json(), "bins": config.bins, "spec": target.spec.to_json()}
        write_json(run.file(ACTIONS), facts)
        if skips is not None:
            run.skips.rows.extend(skips.rows)
        return run.finish({"used": samples, "sources": {SOURCE: {"samples": samples, "group": "robot"}}})


def _parts(target: Robots) -> Iterator[list[Episode]]:
    episodes = iter(target)
    while part := list(itertools.islice(episodes, EPISODES)):
        yield part


def _commit(
    run: StageRun, name: str, episodes: list[Episode], config: ActionTextConfig, normaliser: ActionNormaliser
) -> dict[str, Any]:
    skips = Skips()
    facts: dict[str, Any] = {}

    def write(path: Path) -> None:
        # The record is written after the file, and so with the count in it.
        facts["samples"] = write_table(path, action_samples(episodes, config, normaliser, skips))

    return run.commit_part(name, facts, {f"{name}.parquet": write}, skips)


def action_samples(
    episodes: list[Episode], config: ActionTextConfig, normaliser: ActionNormaliser, skips: Skips
) -> Iterator[Sample]:
    """Frames of each episode, evenly over its length, as samples; ids are "task/episode/frame"."""
    for episode in episodes:
        count = min(config.frames_per_episode, len(episode.frames))
        text = target_prompt(episode.instruction, config.prompt)
        for index in np.linspace(0, len(episode.frames) - 1, count).round().astype(int).tolist():
            try:
                frame = episode.frames[index]
            except BadEpisode as error:
                skips.add(error.reason, f"{episode.id}/{index}", error.detail)
                continue
            encoded = io.BytesIO()
            Image.fromarray(frame).save(encoded, "PNG")
            answer = action_text(episode.actions[index], normaliser, config.bins)
            id = f"{episode.task}/{episode.id}/{index:04d}"
            yield question(SOURCE, id, Picture(data=encoded.getvalue()), text, answer)


def as_text_command(
    target: Path,
    out: Path,
    config: ActionTextConfig = ActionTextConfig(),
    camera: str | None = None,
    overwrite: bool = False,
) -> None:
    """Robot frames as image-text samples whose answers are the actions, written as numbers.

    A backbone tuned on them (emt midtrain) is the VLA-conditioned one by whose perplexity samples can be ranked.

    Examples:
        emt robots as-text --target runs/quickstart/demos --out runs/mine/robot-text
        emt midtrain --pool runs/mine/robot-text --out runs/mine/robot-tuned --steps 60 --batch 16 --micro-batch 16

    Args:
        target: robot data, as for 'emt embed'.
        out: folder for the pool.
        camera: which pictures of the target to take, where it holds several.
        overwrite: replace a result that was made from other inputs or settings.
    """
    skips = Skips()
    robots = open_robots(target, skips, camera=camera)
    artifact = robots_as_text(out, config, target=robots, skips=skips, overwrite=overwrite)
    print(f"{artifact.counts['used']} samples in {out}")
