"""Where the artifacts of a recipe run lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embodied_midtrain.recipes.recipe import Recipe

PASSES = ("before", "perplexity", "text", "influence")
"""Of 'emt score' over the pool; before: the perplexity that the backbone had."""


@dataclass(frozen=True)
class Layout:
    """Folders under one run.

    Attributes:
        run: the run's own.
        selected: another run, from which everything up to the selections is taken.
    """

    run: Path
    selected: Path | None = None

    @property
    def before(self) -> Path:
        """The run that has made the selections."""
        return self.selected or self.run

    @property
    def pool(self) -> Path:
        return self.before / "pool"

    @property
    def pool_file(self) -> Path:
        """Sources of a pool file of the package, with whole paths."""
        return self.before / "pool.yaml"

    @property
    def demos(self) -> Path:
        return self.before / "demos"

    @property
    def gap(self) -> Path:
        return self.before / "gap"

    @property
    def robot_text(self) -> Path:
        return self.before / "robot-text"

    @property
    def robot_tuned(self) -> Path:
        return self.before / "robot-tuned"

    @property
    def compared(self) -> Path:
        return self.before / "compared"

    @property
    def audit(self) -> Path:
        return self.before / "audit"

    @property
    def report(self) -> Path:
        return self.run / "report"

    def features(self, of: str) -> Path:
        """`of`: "pool", "target" or "target-other-prompt"."""
        return self.before / "features" / of

    def scores(self, name: str) -> Path:
        """`name`: one of `PASSES`."""
        return self.before / "scores" / name

    def selection(self, name: str) -> Path:
        """`name`: a selector, or "other-prompt"."""
        return self.before / "select" / name

    def midtrained(self, training: str) -> Path:
        """`training`: the name of a `recipe.Training`."""
        return self.run / "midtrain" / training

    def policy(self, tuning: str) -> Path:
        """`tuning`: the name of a `recipe.Tuning`, here and below."""
        return self.run / "policies" / tuning

    def rollouts(self, tuning: str) -> Path:
        return self.run / "rollouts" / tuning

    def vla_eval(self, tuning: str) -> Path:
        """Config, commands and results of vla-eval: no artifact, for others write into it."""
        return self.run / "vla-eval" / tuning

    def relative(self, path: Path) -> str:
        """From the run's folder; what lies in another run is named whole."""
        return path.relative_to(self.run).as_posix() if path.is_relative_to(self.run) else str(path.resolve())

    def artifacts(self, recipe: Recipe) -> dict[str, Path]:
        """Every artifact that the recipe can make, by stage name, in order."""
        named = {"pool": self.pool, "demos": self.demos}
        named |= {f"embed {of}": self.features(of) for of in ("pool", "target", "target-other-prompt")}
        named |= {"gap": self.gap}
        named |= {"robot text": self.robot_text, "robot tuned": self.robot_tuned}
        named |= {f"score {name}": self.scores(name) for name in PASSES}
        named |= {f"select {name}": self.selection(name) for name in (*recipe.selectors(), "other-prompt")}
        named |= {"compare": self.compared}
        named |= {"audit": self.audit}
        for training in recipe.trainings():
            if training.variant.midtrain_on != "nothing":
                named[f"midtrain {training.name}"] = self.midtrained(training.name)
        for stage, place in (("finetune", self.policy), ("rollout", self.rollouts)):
            named |= {f"{stage} {tuning.name}": place(tuning.name) for tuning in recipe.tunings()}
        return named
