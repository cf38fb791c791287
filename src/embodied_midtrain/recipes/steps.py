"""The stages of a recipe: what each is made from, where it lies, and in which order they come."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Artifact, Skips, StageError
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.benchmarks.demos import record_demos
from embodied_midtrain.benchmarks.rollout import rollout
from embodied_midtrain.diagnostics.audit import audit
from embodied_midtrain.diagnostics.given import Given
from embodied_midtrain.episodes import Robots
from embodied_midtrain.features.extract import embed
from embodied_midtrain.gap.measure import measure_gap, source_groups
from embodied_midtrain.midtraining.midtrain import midtrain
from embodied_midtrain.policies.finetune import finetune
from embodied_midtrain.policies.opening import load_actor
from embodied_midtrain.progress import console
from embodied_midtrain.proximity.compare import compare
from embodied_midtrain.proximity.score import NEEDS, score
from embodied_midtrain.proximity.select import select
from embodied_midtrain.proximity.selectors import GIVEN
from embodied_midtrain.recipes.inputs import open_target, opened, pool_place
from embodied_midtrain.recipes.layout import PASSES, Layout
from embodied_midtrain.recipes.meter import Meter
from embodied_midtrain.recipes.recipe import Recipe, Training, Tuning
from embodied_midtrain.recipes.vla_eval import read_played, write_orders
from embodied_midtrain.robots.action_text import robots_as_text
from embodied_midtrain.robots.balanced import BalancedRobots, Looked
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.sources.registry.build import build_pool


@dataclass
class Run:
    """A recipe on its way: where things lie, what is timed, the backbone that is at hand.

    `factor` is what the recipe's counts were scaled by: others' counts are, too.
    """

    recipe: Recipe
    layout: Layout
    meter: Meter
    factor: float = 1.0
    loaded: tuple[str, Backbone] | None = None
    looked: dict[str, Looked] = field(default_factory=dict)

    def seeded(self, config: Any, more: int = 0) -> Any:
        """A stage's config with the recipe's seed, and `more`, added to its own."""
        return replace(config, seed=config.seed + self.recipe.seed + more)

    def backbone(self, name: str, random_language: int | None = None) -> Backbone:
        """One backbone is kept at a time: several do not fit a laptop."""
        key = f"{name} {random_language}"
        if self.loaded is None or self.loaded[0] != key:
            self.loaded = None
            gc.collect()
            self.loaded = (key, load_backbone(name, random_language=random_language))
        return self.loaded[1]

    # -- data --------------------------------------------------------------------------------------------------------

    def pool(self) -> None:
        if self.recipe.data.pool is None:
            build_pool(self.layout.pool, self.seeded(self.recipe.pool))

    def demos(self) -> None:
        if self.recipe.data.target is None:
            record_demos(self.layout.demos, self.seeded(self.recipe.demos))

    def pool_path(self) -> Path | str:
        return pool_place(self.recipe, self.layout)

    def target(self, skips: Skips) -> Robots:
        """The robot data that the pool is compared with."""
        recipe = self.recipe
        if not recipe.benchmarks:
            return open_target(recipe, self.layout, skips)
        frames = recipe.target_frames
        episodes = None if frames is None else max(1, round(frames / recipe.embed.frames_per_episode))
        parts = opened(recipe, self.layout, skips)
        return BalancedRobots(parts, episodes=episodes, seed=recipe.seed, looked=self.looked)

    @property
    def seeing(self) -> str:
        """The backbone whose features are compared."""
        return self.recipe.select_with or self.recipe.backbone

    # -- proximity ---------------------------------------------------------------------------------------------------

    def embed(self, of: str) -> None:
        out, config = self.layout.features(of), self.recipe.embed
        if of == "target-other-prompt":
            config = replace(config, prompt=self.recipe.other_prompt)
        skips = Skips()
        if of == "pool":
            pool = open_pool(self.pool_path(), images=self.recipe.data.images, skips=skips)
            embed(out, config, backbone=self.backbone(self.seeing), pool=pool, skips=skips, total=self._rows())
        else:
            target = self.target(skips)
            embed(out, config, backbone=self.backbone(self.seeing), target=target, skips=skips)

    def _rows(self) -> int | None:
        if self.recipe.data.pool is not None:
            return None
        return sum(source["samples"] for source in Artifact.open(self.layout.pool).counts["sources"].values())

    def features(self, of: str) -> Artifact:
        return Artifact.open(self.layout.features(of), "embed")

    def gap(self) -> None:
        config = self.seeded(self.recipe.gap)
        groups = source_groups(self.pool_path())
        measure_gap(self.layout.gap, config, pool=self.features("pool"), target=self.features("target"), groups=groups)

    def select(self, name: str) -> None:
        other = name == "other-prompt"
        selector = "estimator" if other else name
        config = replace(self.seeded(self.recipe.select), selector=selector)
        if selector != "estimator" and config.draw == "gumbel":
            # Not all give a ratio; the comparison is one of rankings.
            config = replace(config, draw="top")
        before = self.layout.scores("before")
        select(
            self.layout.selection(name),
            config,
            pool=self.features("pool"),
            target=self.features("target-other-prompt" if other else "target"),
            match=Artifact.open(self.layout.selection("estimator"), "select") if name == "matched-random" else None,
            scores=Artifact.open(self.layout.scores(GIVEN[name]), "score") if name in GIVEN else None,
            before=Artifact.open(before, "score") if name == "delta-perplexity" else None,
        )

    def robot_text(self) -> None:
        skips = Skips()
        robots = self.target(skips)
        robots_as_text(self.layout.robot_text, self.recipe.robot_text, target=robots, skips=skips)

    def robot_tuned(self) -> None:
        midtrain(
            self.layout.robot_tuned,
            self.seeded(self.recipe.midtrain),
            backbone=self.backbone(self.seeing),
            pool=self.layout.robot_text,
        )
        self.loaded = None

    def score(self, name: str) -> None:
        skips = Skips()
        by = GIVEN.get(name, "perplexity")
        tuned = str(self.layout.robot_tuned / "model")
        needs = NEEDS[by]
        score(
            self.layout.scores(name),
            replace(self.recipe.score, by=by),
            pool=open_pool(self.pool_path(), images=self.recipe.data.images, skips=skips),
            backbone=self.backbone(self.seeing if name == "before" else tuned) if "backbone" in needs else None,
            target=self.target(skips) if "target" in needs else None,
            spoken=Artifact.open(self.layout.robot_text) if by == "influence" else None,
            skips=skips,
        )

    def compare(self) -> None:
        names = self.recipe.selectors()
        chosen: dict[str, Artifact] = {name: Artifact.open(self.layout.selection(name), "select") for name in names}
        compare(self.layout.compared, pool=self.features("pool"), selections=chosen)

    def audit(self) -> None:
        skips = Skips()
        given = Given(
            selection=Artifact.open(self.layout.selection("estimator"), "select"),
            others={"other-prompt": Artifact.open(self.layout.selection("other-prompt"), "select")},
            samples=open_pool(self.pool_path(), images=self.recipe.data.images, skips=skips),
            samples_skips=skips,
            robots=self.target(Skips()),
            backbone=self.backbone(self.seeing),
        )
        config = self.seeded(self.recipe.audit)
        audit(self.layout.audit, config, pool=self.features("pool"), target=self.features("target"), given=given)

    # -- variants ----------------------------------------------------------------------------------------------------

    def midtrain(self, training: Training) -> None:
        if self.recipe.selection_from is not None:
            self.check_selected()
        midtrain(
            self.layout.midtrained(training.name),
            self.seeded(self.recipe.midtrain, training.seed),
            backbone=self.backbone(self.recipe.backbone),
            pool=self.pool_path(),
            images=self.recipe.data.images,
            selection=Artifact.open(self.layout.selection(training.variant.midtrain_on), "select"),
        )
        # Training changed it in place.
        self.loaded = None

    def check_selected(self) -> None:
        """Raise `StageError` where the run that has selected is no longer of the pool that is there."""
        before = self.features("pool").manifest["inputs"].get("pool")
        now = open_pool(self.pool_path(), images=self.recipe.data.images, skips=Skips()).fingerprint()
        if before != now:
            raise StageError(f"the pool {self.pool_path()} has changed since {self.layout.before} selected from it.")

    def finetune(self, tuning: Tuning) -> None:
        training, config = tuning.training, self.recipe.finetune
        if tuning.benchmark:
            own = self.recipe.benchmarks[tuning.benchmark]
            config = replace(config, chunk=own.chunk, executed=own.executed)
        mixed = training.variant.midtrain_on != "nothing"
        name = str(self.layout.midtrained(training.name) / "model") if mixed else self.recipe.backbone
        scratch = self.recipe.seed + training.seed if training.variant.random_language else None
        skips = Skips()
        finetune(
            self.layout.policy(tuning.name),
            self.seeded(config, training.seed),
            backbone=self.backbone(name, scratch),
            demos=open_target(self.recipe, self.layout, skips, tuning.benchmark),
            skips=skips,
            cache=self.layout.run / "cache",
        )
        self.loaded = None

    def rollout(self, tuning: Tuning) -> None:
        policy = self.layout.policy(tuning.name)
        own = self.recipe.benchmarks.get(tuning.benchmark)
        if own is not None and own.protocol:
            folder = self.layout.vla_eval(tuning.name)
            commands = write_orders(folder, policy, own, self.factor)
            if not read_played(folder, policy).complete:
                for text in ("evaluate it by vla-eval, and give this command again:", *commands):
                    console.print(text if text.endswith(":") else f"  {text}", highlight=False, soft_wrap=True)
            return
        config = self.recipe.rollout if own is None else own.rollout
        rollout(self.layout.rollouts(tuning.name), config, load_actor(policy))


def stages(run: Run) -> list[tuple[str, Callable[[], None]]]:
    """Names and work of a recipe's stages, in order."""
    recipe = run.recipe
    rows = _selecting(run) if recipe.selection_from is None else []
    for seed in recipe.training_seeds:
        for training in recipe.trainings():
            if training.seed == seed and training.variant.midtrain_on != "nothing":
                rows.append((f"midtrain {training.name}", partial(run.midtrain, training)))
        for stage, work in (("finetune", run.finetune), ("rollout", run.rollout)):
            for tuning in recipe.tunings():
                if tuning.training.seed == seed:
                    rows.append((f"{stage} {tuning.name}", partial(work, tuning)))
    return rows


def _selecting(run: Run) -> list[tuple[str, Callable[[], None]]]:
    """Up to the selections."""
    recipe = run.recipe
    rows: list[tuple[str, Callable[[], None]]] = []
    if recipe.data.pool is None:
        rows.append(("pool", run.pool))
    if recipe.data.target is None and not recipe.benchmarks:
        rows.append(("demos", run.demos))
    rows += [(f"embed {of}", partial(run.embed, of)) for of in ("pool", "target", "target-other-prompt")]
    rows.append(("gap", run.gap))
    names = recipe.selectors()
    passes = {GIVEN[name] for name in names if name in GIVEN} | ({"before"} if "delta-perplexity" in names else set())
    if passes - {"text"}:
        rows += [("robot text", run.robot_text), ("robot tuned", run.robot_tuned)]
    rows += [(f"score {name}", partial(run.score, name)) for name in PASSES if name in passes]
    rows += [(f"select {name}", partial(run.select, name)) for name in (*names, "other-prompt")]
    if len(names) > 1:
        rows.append(("compare", run.compare))
    rows.append(("audit", run.audit))
    return rows
