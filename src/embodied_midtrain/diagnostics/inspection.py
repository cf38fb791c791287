"""What an audit looks at, part by part, and the figures that it gets."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError, StageRun, read_json
from embodied_midtrain.config import structure
from embodied_midtrain.diagnostics.altered import look
from embodied_midtrain.diagnostics.given import Given
from embodied_midtrain.diagnostics.leaks import find_leaks, hash_target
from embodied_midtrain.diagnostics.rankings import agreement, read_scores
from embodied_midtrain.diagnostics.sampled import Drawn, FrameDraw, draw_samples
from embodied_midtrain.diagnostics.stability import over_halves, over_seeds
from embodied_midtrain.diagnostics.traits import lengths, sizes, words
from embodied_midtrain.diagnostics.verdict import Figures, judge
from embodied_midtrain.episodes import ACTION_PROMPT
from embodied_midtrain.features.drawing import draw_rows
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.splits import episodes_of
from embodied_midtrain.features.store import FeatureTable, open_features
from embodied_midtrain.gap.probe import cross_validated
from embodied_midtrain.proximity.estimator import Estimator, EstimatorConfig
from embodied_midtrain.proximity.ranking import spearman

if TYPE_CHECKING:
    from embodied_midtrain.diagnostics.audit import AuditConfig

LISTED = 20
"""Leaks that audit.json names; leaks.parquet holds them all."""


class Inspection:
    """The parts of one audit, in order; each adds its figures, or why it could not be looked at."""

    def __init__(
        self, run: StageRun, config: AuditConfig, pool: Artifact, target: Artifact, given: Given, max_bad: float
    ) -> None:
        self.run, self.config, self.given, self.max_bad = run, config, given, max_bad
        self.embedded = target.manifest["config"] | pool.manifest["config"]
        self.prompt = str(target.manifest["config"].get("prompt", ACTION_PROMPT))
        self.pool = draw_rows(open_features(pool), config.rank_rows, config.seed)
        self.target = draw_rows(open_features(target), config.rank_rows, config.seed)
        if min(len(self.pool), len(self.target)) < 20:
            raise StageError(
                f"{len(self.pool)} usable samples and {len(self.target)} frames are too few for an audit; 20 of each."
            )
        self.figures: dict[str, Any] = {}
        self.found: dict[str, Any] = {}
        self.not_run: dict[str, str] = {}

    def facts(self) -> dict[str, Any]:
        """Look at everything that is at hand: what audit.json holds."""
        ranking, fitted = self._rankings()
        rng = np.random.default_rng(self.config.seed)
        near, far = (table.at(_some(len(table), self.config.rows, rng)) for table in (self.pool, self.target))
        self._probe("full", near.features, far.features, episodes_of(far))
        drawn, frames = self._draw(near, far, rng)
        if drawn is not None and frames is not None:
            for name, of in (("text", words), ("length", lengths), ("size", sizes)):
                self._probe(name, of(drawn.traits), of(frames.traits), np.array(frames.episodes), drawn.pictures)
            self._length(drawn, ranking)
        self._altered(drawn, frames, fitted)
        self._image_stores()
        self._leaks()
        verdict = judge(Figures(**self.figures), self.config.limits)
        return {
            "verdict": verdict.words,
            "findings": [asdict(finding) for finding in verdict.findings],
            **self.found,
            "not_run": self.not_run,
            "limits": asdict(self.config.limits),
            "rows": {"pool": len(self.pool), "target": len(self.target)},
        }

    # -- rankings ----------------------------------------------------------------------------------------------------

    def _rankings(self) -> tuple[NDArray[np.float32], Estimator]:
        """The ranking that is audited, over the drawn samples, and an estimator fitted as its own was."""
        estimator, top, notes = EstimatorConfig(), 0.1, []
        ranking: NDArray[np.float32] | None = None
        chosen = self.given.selection
        if chosen is not None:
            settings, facts = chosen.manifest["config"], read_json(chosen.file("selection.json"))
            if settings.get("selector") == "estimator":
                estimator = structure(EstimatorConfig, settings["estimator"], str(chosen.path))
                notes = list((facts.get("estimator") or {}).get("notes", []))
            top = float(settings["k"]) / max(1, int(chosen.counts["pool"]))
            ranking = read_scores(chosen, self.pool)
        config = self.config
        seeds, fitted = over_seeds(self.pool, self.target, estimator, seeds=config.seeds, seed=config.seed, top=top)
        halves = over_halves(self.pool, self.target, estimator, splits=config.splits, seed=config.seed, top=top)
        own = fitted.scores(self.pool.features)
        self.found["fit"] = {"accuracy": fitted.accuracy, "steps": fitted.steps, "notes": notes or fitted.notes}
        self.found["top"] = top
        self.found["seeds"], self.figures["seeds"] = asdict(seeds), seeds.least
        self.figures["notes"] = tuple(notes or fitted.notes)
        if halves is not None:
            self.found["halves"], self.figures["halves"] = asdict(halves), halves.least
        if ranking is None:
            self.not_run["selection"] = "No ranking was given (--selection); a fit of the audit's own stands for it."
            ranking = own
        else:
            self.found["refit"] = _alike(own, ranking)
        others = {name: agreement(self.pool.sources, ranking, read_scores(a, self.pool)) for name, a in self._others()}
        self.found["rankings"] = {name: asdict(found) for name, found in others.items()}
        known = [found.overall for found in others.values() if found.overall is not None]
        if known:
            self.figures["other_prompt"] = min(known)
        else:
            self.not_run["other prompt"] = "No ranking under another robot prompt was given (--others)."
        return ranking, fitted

    def _others(self) -> list[tuple[str, Artifact]]:
        return sorted(self.given.others.items())

    # -- probes ------------------------------------------------------------------------------------------------------

    def _probe(
        self,
        name: str,
        pool: NDArray[np.float32],
        target: NDArray[np.float32],
        episodes: NDArray[np.str_],
        pictures: NDArray[np.str_] | None = None,
    ) -> dict[str, Any] | None:
        if min(len(pool), len(target)) < 2 * self.config.folds:
            self.not_run[name] = f"{len(pool)} samples and {len(target)} frames are too few for a probe."
            return None
        probe = cross_validated(
            pool, target, episodes=episodes, pictures=pictures, count=self.config.folds, seed=self.config.seed
        )
        facts = {"accuracy": probe.accuracy, "spread": probe.spread, "rows": [len(pool), len(target)]}
        self._note_probe(name, facts)
        return facts

    def _note_probe(self, name: str, facts: dict[str, Any]) -> None:
        self.found.setdefault("probes", {})[name] = facts
        self.figures[name] = facts["accuracy"]

    def _draw(
        self, near: FeatureTable, far: FeatureTable, rng: np.random.Generator
    ) -> tuple[Drawn | None, FrameDraw | None]:
        """The samples and frames behind features; frames are hashed in the same pass over the robot data."""
        pool, robots = self.given.samples, self.given.robots
        if pool is None or robots is None:
            self.not_run["words and sizes"] = "They are in the pool and the robot data (--samples, --robots)."
            return None, None
        drawn = draw_samples(pool, near, rng)
        count = self.config.frames if self.config.pictures and self.given.backbone is not None else 0
        frames = FrameDraw(far, prompt=self.prompt, count=count, rng=rng)
        hash_target(self.run, robots, stride=self.config.leak_stride, workers=self.config.workers, also=frames.take)
        frames.check(robots.name)
        self.found["unreadable"] = drawn.unreadable
        return drawn, frames

    def _length(self, drawn: Drawn, ranking: NDArray[np.float32]) -> None:
        place = {key: n for n, key in enumerate(zip(self.pool.sources, self.pool.ids, strict=True))}
        rows = [place[sample.key] for sample in drawn.samples]
        letters = np.array([len(traits.text) for traits in drawn.traits], np.float64)
        found = _alike(ranking[rows], letters)
        self.found["score_by_length"] = self.figures["by_length"] = found

    def _image_stores(self) -> None:
        near, far = self.given.image_pool, self.given.image_target
        if near is None or far is None:
            return
        check_same_space(near, far)
        a, b = (draw_rows(open_features(store), self.config.rows, self.config.seed) for store in (near, far))
        self._probe("image", a.features, b.features, episodes_of(b))

    # -- pictures ----------------------------------------------------------------------------------------------------

    def _altered(self, drawn: Drawn | None, frames: FrameDraw | None, fitted: Estimator) -> None:
        """Embed some samples again, altered; kept as a part, for it is the slowest."""
        backbone = self.given.backbone
        if backbone is None or drawn is None or frames is None or not self.config.pictures:
            self.not_run["pictures"] = "Samples are embedded again with --samples, --robots and --backbone."
            return
        shown = [n for n, sample in enumerate(drawn.samples) if sample.pictures][: self.config.pictures]
        if len(shown) < 20 or len(frames.frames) < 20:
            self.not_run["pictures"] = f"{len(shown)} samples with pictures and {len(frames.frames)} frames: too few."
            return
        record = self.run.part("altered")
        if record is None:
            embedded = EmbedConfig(
                **{
                    key: self.embedded[key]
                    for key in ("pooling", "layer", "layers", "precision")
                    if key in self.embedded
                }
            )
            samples = [drawn.samples[n] for n in shown]
            seen = look(backbone, samples, frames.frames, embedded, workers=self.config.workers)
            own = fitted.scores(drawn.features[shown][seen.rows])
            facts: dict[str, Any] = {"rows": len(seen.rows)}
            for name, rows in (("sized", seen.sized), ("worded", seen.worded), ("blank", seen.blank)):
                facts[name] = _alike(own, fitted.scores(rows))
            pictures = drawn.pictures[shown][seen.rows]
            episodes = np.array([frame.episode for frame in frames.frames])
            facts["image"] = self._probe("image", seen.pictures, seen.frames, episodes, pictures)
            record = self.run.commit_part("altered", facts)
        if record["image"] is not None:
            self._note_probe("image", record["image"])
        self.found["altered"] = {name: record[name] for name in ("rows", "sized", "worded", "blank")}
        self.figures |= {name: record[name] for name in ("sized", "worded", "blank")}

    def _leaks(self) -> None:
        if self.given.samples is None or self.given.robots is None or not self.config.leak_stride:
            self.not_run["leaks"] = "Pictures are compared with --samples, --robots and a --leak-stride above 0."
            return
        found = find_leaks(
            self.run,
            self.given.samples,
            skips=self.given.samples_skips,
            most=self.config.leak_bits,
            workers=self.config.workers,
            max_bad=self.max_bad,
        )
        count = len({row[:2] for row in found.rows})
        names = ("source", "id", "task", "frame", "bits")
        self.found["leaks"] = {
            "samples": count,
            "pictures": found.pictures,
            "frames": found.frames,
            "first": [dict(zip(names, row, strict=True)) for row in found.rows[:LISTED]],
        }
        self.figures["leaks"] = count


def _some(length: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(length) if length <= count else np.sort(rng.choice(length, count, replace=False))


def _alike(first: NDArray[np.floating], second: NDArray[np.floating]) -> float | None:
    """Rank correlation where both are numbers; None where it is none."""
    known = np.isfinite(first) & np.isfinite(second)
    found = spearman(first[known], second[known])
    return found if np.isfinite(found) else None
