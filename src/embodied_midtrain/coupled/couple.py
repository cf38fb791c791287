"""`emt couple`: questions and answers from the scenes and trajectories of robot episodes, as a pool.

"Two Bridges, One Pathway" (arXiv 2606.08520) calls them embodied trajectory-coupled data. Labels come from what is
recorded of the episode (`coupled.trace`); which questions are asked is chosen so that kinds and answers come out even.
"""

from __future__ import annotations

import importlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embodied_midtrain.artifacts import Artifact, Skips, StageError, StageRun, open_stage, read_json, write_json
from embodied_midtrain.coupled.baselines import baselines
from embodied_midtrain.coupled.calibration import read_calibration
from embodied_midtrain.coupled.measured import MeasuredConfig
from embodied_midtrain.coupled.moment import Asked, Moment
from embodied_midtrain.coupled.opening import Traces, open_traces
from embodied_midtrain.coupled.phases import phases
from embodied_midtrain.coupled.projection import fits
from embodied_midtrain.coupled.questions import CATEGORY, FAMILIES, MOST, WEIGHTS, questions, shares
from embodied_midtrain.coupled.tally import Tally
from embodied_midtrain.coupled.trace import Trace
from embodied_midtrain.episodes import BadEpisode
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.samples import BadSample, Picture, Sample, Turn
from embodied_midtrain.sources.asking import Asker
from embodied_midtrain.sources.opening import POOL_STAGE
from embodied_midtrain.sources.registry.images import picture
from embodied_midtrain.sources.table import write_table

PREFIX = "etc-"
"""Before the category in a sample's source."""
EPISODES = 32
"""Of one file: what a killed run loses at most, and among which answers are kept even."""
FACTS, SUMMARY = "questions-{:06d}.jsonl", "coupled.json"

Rewrite = Callable[[Sample], Sample | None]
"""Words a question anew, or refuses it with None."""


@dataclass(frozen=True)
class CoupleConfig:
    """Which questions are asked."""

    looks_per_episode: int = 8
    """Pictures of an episode that are asked about, evenly over those that were recorded."""
    questions_per_look: int = 4
    """Questions about one look, of different kinds; fewer where fewer can be asked."""
    weights: dict[str, float] = field(default_factory=dict)
    """Shares of categories, such as {spatial: 1, trajectory: 2}; one without is left out. None at all: the paper's,
    affordance .22, goal .14, spatial .24, planning .14, trajectory .26."""
    seed: int = 0
    """Chooses questions and wordings."""
    rewrite: str = ""
    """A function of your own, "package.module:function", that gets each sample and gives it back, reworded or as it
    is, or None to leave it out. Nothing but what is named here is run."""

    def check(self) -> None:
        """Raise `ValueError` on settings that cannot be meant."""
        if self.looks_per_episode < 1 or self.questions_per_look < 1:
            raise ValueError("wanted at least 1 look an episode and 1 question a look")
        if strangers := set(self.weights) - set(FAMILIES):
            raise ValueError(f"no category {', '.join(sorted(strangers))}; there are: {', '.join(FAMILIES)}")
        if min(self.weights.values(), default=0.0) < 0 or not sum(self.wanted.values()) > 0:
            raise ValueError(f"weights {self.weights}: wanted numbers of 0 and more, one of them above 0")

    @property
    def wanted(self) -> dict[str, float]:
        """The shares in force."""
        return self.weights or WEIGHTS


def couple(out: Path | str, config: CoupleConfig, *, episodes: Traces, overwrite: bool = False) -> Artifact:
    """A pool of one source a category, `etc-spatial` and so on, with what each question is about beside it.

    Raises:
        StageError: where no question can be asked at all.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    rewrite = named_function(config.rewrite) if config.rewrite else None
    with open_stage(out, POOL_STAGE, config, {"episodes": episodes.fingerprint}, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        # Demonstrations of one task are called alike wherever they were recorded; samples of two pools must not be.
        mark = episodes.fingerprint[:8]
        records = []
        with progress_bar("trajectory-coupled data", episodes.count) as bar:
            for number, part in enumerate(_parts(episodes)):
                name = f"coupled-{number:06d}"
                records.append(run.part(name) or _commit(run, number, name, part, config, rewrite, mark))
                bar.advance(len(part))
        return _finish(run, config, records, episodes)


def _parts(episodes: Traces) -> Iterator[list[Trace]]:
    stream = iter(episodes)
    while part := list(itertools.islice(stream, EPISODES)):
        yield part


def _commit(
    run: StageRun,
    number: int,
    name: str,
    part: list[Trace],
    config: CoupleConfig,
    rewrite: Rewrite | None,
    mark: str,
) -> dict[str, Any]:
    facts: dict[str, Any] = {"episodes": len(part)}
    skips, rows, left = Skips(), list[dict[str, Any]](), Counter[tuple[str, str]]()

    def write(path: Path) -> None:
        rng = np.random.default_rng([config.seed, number])
        facts["samples"] = write_table(path, _samples(part, config, rng, rewrite, mark, skips, rows, left))
        # The record is written after the file, and so with the counts in it.
        facts["left"] = [[kind, reason, times] for (kind, reason), times in sorted(left.items())]

    def write_rows(path: Path) -> None:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")

    return run.commit_part(name, facts, {f"{name}.parquet": write, FACTS.format(number): write_rows}, skips)


def _samples(
    part: list[Trace],
    config: CoupleConfig,
    rng: np.random.Generator,
    rewrite: Rewrite | None,
    mark: str,
    skips: Skips,
    rows: list[dict[str, Any]],
    left: Counter[tuple[str, str]],
) -> Iterator[Sample]:
    asker: Asker[Asked] = Asker(rng, shares(config.wanted), MOST)
    for trace in part:
        trace = checked(trace, skips)
        found = phases(trace)
        if found and not any(phase.kind == "grasp" for phase in found):
            left["grasp-point", "episode without a grasp"] += 1
        count = min(config.looks_per_episode, len(trace.looks))
        for look in np.linspace(0, len(trace.looks) - 1, count).round().astype(int).tolist():
            moment = Moment(trace, look, found, rng, left)
            shown: dict[str, Picture] = {}
            for asked, phrasing in asker.pick(questions(moment, config.wanted), config.questions_per_look):
                try:
                    pictures = tuple(_picture(moment, view, shown) for view in asked.views)
                except BadEpisode as error:
                    skips.add(error.reason, f"{trace.id}/{moment.step}", error.detail)
                    break
                sample = _rewritten(_sample(mark, moment, asked, phrasing, pictures), rewrite, skips)
                if sample is not None:
                    rows.append(_row(moment, asked, sample))
                    yield sample


def checked(trace: Trace, skips: Skips) -> Trace:
    """The same without calibrations and tracks that do not fit the pictures."""
    views = []
    for view in trace.views:
        fit, where = None, f"{trace.id}/{view.name}"
        try:
            fit = fits(trace, view)
        except BadEpisode as error:
            skips.add(error.reason, where, error.detail)
        else:
            given = view.track is not None or view.cameras is not None
            if fit is None and given and view.seen is None:
                skips.add(
                    "calibration could not be checked" if view.track is None else "track could not be checked",
                    where,
                    "the camera is on the hand, or the hand moves too little; questions were asked by it all the same",
                )
        if fit is False:
            of = "calibration" if view.track is None else "track"
            skips.add(
                f"{of} does not fit the pictures",
                where,
                "where it has the gripper, the pictures show none; nothing was asked by it",
            )
            view = replace(view, cameras=None, track=None)
        views.append(view)
    return replace(trace, views=tuple(views))


def _picture(moment: Moment, view: str, shown: dict[str, Picture]) -> Picture:
    if view not in shown:
        shot = moment.shot(view)
        assert shot is not None
        shown[view] = picture(Image.fromarray(shot.view.frames[moment.look]))
    return shown[view]


def _sample(mark: str, moment: Moment, asked: Asked, phrasing: str, pictures: tuple[Picture, ...]) -> Sample:
    turns = (Turn("user", phrasing, asked.pointed), Turn("assistant", asked.answer, asked.shown))
    id = f"{mark}/{moment.trace.id}/{moment.step:05d}-{asked.kind}"
    return Sample(f"{PREFIX}{CATEGORY[asked.kind]}", id, pictures, turns, "", moment.trace.task)


def _rewritten(sample: Sample, rewrite: Rewrite | None, skips: Skips) -> Sample | None:
    if rewrite is None:
        return sample
    try:
        found = rewrite(sample)
        if found is None:
            skips.add("left out by the rewriter", sample.id)
            return None
        found.check()
        # It may change words, never what a sample is called.
        return replace(found, source=sample.source, id=sample.id)
    except BadSample as error:
        skips.add(f"rewriter: {error.reason}", sample.id, error.detail)
        return None


def _row(moment: Moment, asked: Asked, sample: Sample) -> dict[str, Any]:
    return {
        "source": sample.source,
        "id": sample.id,
        "kind": asked.kind,
        "episode": moment.trace.id,
        "step": moment.step,
        "look": moment.look,
        "views": asked.views,
        "about": asked.about,
        "question": sample.turns[0].text,
        "answer": sample.answer,
        "pointed": [region.values for region in asked.pointed],
        "shown": [region.values for region in asked.shown],
    }


def _finish(run: StageRun, config: CoupleConfig, records: list[dict[str, Any]], episodes: Traces) -> Artifact:
    tally = Tally(read_facts(run.out))
    left = Counter[tuple[str, str]]()
    for record in records:
        left.update({(kind, reason): times for kind, reason, times in record["left"]})
    if not tally.questions:
        skips = Skips([*episodes.skips.rows, *(row for record in records for row in record["skipped"])])
        reasons = ", ".join(dict.fromkeys(reason for _, reason in left)) or "there is no episode"
        raise StageError(
            f"no question can be asked about {episodes.name}: {reasons} (skipped: {skips.summary()}). Record "
            "demonstrations with emt demos --truth-every 10, or say of other episodes what --state, --opening and "
            "--calibration are."
        )
    run.skips.rows.extend(episodes.skips.rows)
    sources = Counter[str]()
    for kind, number in tally.questions.items():
        sources[PREFIX + CATEGORY[kind]] += number
    summary = {
        "kinds": {kind: {"category": CATEGORY[kind], **told} for kind, told in tally.kinds().items()},
        "baselines": baselines(tally),
        "left_out": {
            kind: {reason: times for (of, reason), times in sorted(left.items()) if of == kind}
            for kind in sorted({kind for kind, _ in left})
        },
    }
    write_json(run.file(SUMMARY), summary)
    return run.finish(
        {
            "used": tally.questions.total(),
            "episodes": sum(record["episodes"] for record in records),
            "sources": {name: {"samples": number, "group": "embodied"} for name, number in sorted(sources.items())},
            "kinds": dict(sorted(tally.questions.items())),
        }
    )


def read_facts(folder: Path) -> Iterator[dict[str, Any]]:
    """What each question of a finished pool is about, in the samples' order."""
    for path in sorted(folder.glob("questions-*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def named_function(name: str) -> Callable[..., Any]:
    """What "package.module:function" names.

    Raises:
        ValueError: where there is none.
    """
    module, _, function = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name!r} is no function (wanted package.module:function): {error}") from error
    return found


def couple_command(
    episodes: Path,
    out: Path,
    config: CoupleConfig = CoupleConfig(),
    measured: MeasuredConfig = MeasuredConfig(),
    camera: str | None = None,
    calibration: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Questions and answers from robot episodes, coupled to their scenes and trajectories, as a pool.

    Five categories, each a source of the pool: etc-spatial, etc-goal, etc-affordance, etc-planning, etc-trajectory.
    How often each answer is given, how well questions are answered without their picture, and what could not be
    asked for which reason stand in coupled.json; what each question is about in questions-*.jsonl.

    Examples:
        emt demos --out runs/told --tasks pick-place-v3 drawer-open-v3 --episodes 20 --truth-every 10
        emt couple --episodes runs/told --out runs/coupled
        emt couple --episodes data/bridge/1.0.0 --out runs/real --state state --opening 6
        emt couple --episodes runs/told --out runs/paths --weights trajectory 1
        emt midtrain --pool runs/coupled --out runs/bridged --weights etc-spatial 0.5 etc-trajectory 0.5

    Args:
        episodes: demonstrations that were recorded with --truth-every; or robot data of any kind with a state.
        out: folder for the pool.
        camera: which pictures of robot data to take, where they hold several.
        calibration: YAML or JSON file that says where that camera stands and what it sees (docs/coupled.md).
        overwrite: replace a result that was made from other inputs or settings.
    """
    known = read_calibration(calibration) if calibration is not None else None
    traces = open_traces(episodes, measured, camera=camera, calibration=known)
    artifact = couple(out, config, episodes=traces, overwrite=overwrite)
    for name, row in artifact.counts["sources"].items():
        print(f"{name:<18}{row['samples']:>8} samples")
    for kind, own in read_json(artifact.file(SUMMARY))["baselines"].items():
        if own["held"] is False:
            best = max(own[by] for by in ("majority", "words") if own[by] is not None)
            print(
                f"{kind}: {best:.0%} can be answered without the picture, above the {own['ceiling']:.0%} that it is "
                "meant for; more episodes, tasks or scenes make answers less alike"
            )
    print(f"{artifact.counts['used']} samples of {artifact.counts['episodes']} episodes in {out}")
