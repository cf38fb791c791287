"""Where the artifacts of a recipe run lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embodied_midtrain.recipes.recipe import Recipe


@dataclass(frozen=True)
class Layout:
    """Folders under one run."""

    run: Path

    @property
    def pool(self) -> Path:
        return self.run / "pool"

    @property
    def demos(self) -> Path:
        return self.run / "demos"

    @property
    def gap(self) -> Path:
        return self.run / "gap"

    @property
    def robot_text(self) -> Path:
        return self.run / "robot-text"

    @property
    def robot_tuned(self) -> Path:
        return self.run / "robot-tuned"

    @property
    def compared(self) -> Path:
        return self.run / "compared"

    @property
    def audit(self) -> Path:
        return self.run / "audit"

    @property
    def report(self) -> Path:
        return self.run / "report"

    def features(self, of: str) -> Path:
        """`of`: "pool", "target" or "target-other-prompt"."""
        return self.run / "features" / of

    def scores(self, name: str) -> Path:
        """`name`: "perplexity", "before" (the perplexity that the backbone had) or "text"."""
        return self.run / "scores" / name

    def selection(self, name: str) -> Path:
        """`name`: a selector, or "other-prompt"."""
        return self.run / "select" / name

    def midtrained(self, training: str) -> Path:
        """`training`: the name of a `recipe.Training`, here and below."""
        return self.run / "midtrain" / training

    def policy(self, training: str) -> Path:
        return self.run / "policies" / training

    def rollouts(self, training: str) -> Path:
        return self.run / "rollouts" / training

    def relative(self, path: Path) -> str:
        return path.relative_to(self.run).as_posix()

    def artifacts(self, recipe: Recipe) -> dict[str, Path]:
        """Every artifact that the recipe can make, by stage name, in order."""
        named = {"pool": self.pool, "demos": self.demos}
        named |= {f"embed {of}": self.features(of) for of in ("pool", "target", "target-other-prompt")}
        named |= {"gap": self.gap}
        named |= {"robot text": self.robot_text, "robot tuned": self.robot_tuned}
        named |= {f"score {name}": self.scores(name) for name in ("before", "perplexity", "text")}
        named |= {f"select {name}": self.selection(name) for name in (*recipe.selectors(), "other-prompt")}
        named |= {"compare": self.compared}
        named |= {"audit": self.audit}
        for training in recipe.trainings():
            if training.variant.midtrain_on != "nothing":
                named[f"midtrain {training.name}"] = self.midtrained(training.name)
        for stage, place in (("finetune", self.policy), ("rollout", self.rollouts)):
            named |= {f"{stage} {training.name}": place(training.name) for training in recipe.trainings()}
        return named
