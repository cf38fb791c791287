"""The whole job as one typed document: what a recipe file and its command-line overrides fill."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from embodied_midtrain.benchmarks.demos import DemosConfig
from embodied_midtrain.benchmarks.rollout import RolloutConfig
from embodied_midtrain.config import ConfigError, load_yaml, structure
from embodied_midtrain.diagnostics.audit import AuditConfig
from embodied_midtrain.episodes import target_prompt
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.gap.measure import GapConfig
from embodied_midtrain.midtraining.midtrain import MidtrainConfig
from embodied_midtrain.policies.finetune import FinetuneConfig
from embodied_midtrain.proximity.score import ScoreConfig
from embodied_midtrain.proximity.selectors import SelectConfig, Selector
from embodied_midtrain.recipes.benchmarks import RobotBenchmark
from embodied_midtrain.robots.action_text import ActionTextConfig
from embodied_midtrain.sources.registry.build import PoolConfig


@dataclass(frozen=True)
class Variant:
    """One initialisation under comparison."""

    name: str
    """Folder name, such as "selected"."""
    title: str = ""
    """For readers, such as "mid-trained on selected"."""
    midtrain_on: Literal["nothing", Selector] = "nothing"
    """Which selection it is mid-trained on."""
    random_language: bool = False
    """Start the language model from random weights: the control that shows whether the benchmark can tell
    initialisations apart."""


OFF_THE_SHELF = Variant("off-the-shelf", "off the shelf")
VARIANTS = (
    OFF_THE_SHELF,
    Variant("random", "mid-trained on random", "random"),
    Variant("selected", "mid-trained on selected", "estimator"),
    Variant("scratch", "random language model", random_language=True),
)


@dataclass(frozen=True)
class Training:
    """One variant trained with one seed."""

    variant: Variant
    seed: int
    """Added to the seeds of mid-training, of a random language model and of fine-tuning."""
    name: str
    """Of its folders and stages: the variant's, with the seed where there are several."""


@dataclass(frozen=True)
class Tuning:
    """The policy of one training on one benchmark."""

    training: Training
    benchmark: str
    """Its name among the recipe's `benchmarks`; empty where the recipe has one robot only."""

    @property
    def name(self) -> str:
        """Of its folders and stages."""
        return f"{self.benchmark}/{self.training.name}" if self.benchmark else self.training.name


@dataclass(frozen=True)
class Data:
    """The user's own data, in place of what the recipe would make."""

    folder: Path | None = None
    """What relative paths of the pool's sources (where the pool is one of `recipes/pools`) and of the benchmarks'
    targets start from; by default the working folder."""
    pool: str | None = None
    """A pool artifact, files (conversations, WebDataset, Parquet, folders; a pattern or URL), a YAML file that names
    several sources, or the name of such a file in the package: embodied_midtrain; nothing: the registry pool is
    built."""
    images: Path | None = None
    """Folder that image paths start from."""
    target: Path | None = None
    """Robot episodes, HDF5 in the robomimic layout; nothing: demonstrations are recorded."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Pool, robot data, backbone, variants, and the settings of every stage."""

    name: str
    """Of the run; also its folder under runs/."""
    seed: int = 0
    """Of everything that does not set its own."""
    backbone: str = "compact"
    """"compact", or the name or folder of a transformers image-text-to-text model."""
    scale: float = 1.0
    """Every count (samples, steps, warm-up, batches, frames, episodes) is multiplied by it when the recipe runs, down
    to the smallest that works: a small factor checks a long recipe from end to end, and shows nothing of success."""
    select_with: str = ""
    """Another backbone whose features the selection is made with; empty: the one that is mid-trained."""
    selection_from: Path | None = None
    """Folder of a finished run, whose selections (and pool) are taken in place of making them here."""
    other_prompt: str = "{instruction}"
    """A second template for robot frames: a ranking that follows the template and not the scene changes with it."""
    variants: tuple[Variant, ...] = VARIANTS
    """Initialisations under comparison; the first is the reference."""
    training_seeds: tuple[int, ...] = (0,)
    """Every variant is trained once with each, and its episodes are counted together; selections are the same."""
    compared: tuple[Selector, ...] = ("random", "matched-random", "mean-distance", "knn-distance", "ratio", "text")
    """Selectors whose rankings are put beside the estimator's. For perplexity, delta-perplexity and influence the
    backbone is tuned on the robot data first (the settings of midtrain), and goes over the whole pool."""
    benchmarks: dict[str, RobotBenchmark] = field(default_factory=dict)
    """Robots by name, where there are several: the selection is made against all of their data in balance, and each has
    policies of its own. Empty: one robot, as data.target, finetune and rollout say."""
    target_frames: int | None = None
    """With benchmarks: frames of each data set that the pool is compared with, of episodes drawn with the seed; None:
    all episodes."""
    data: Data = field(default_factory=Data)
    pool: PoolConfig = field(default_factory=PoolConfig)
    demos: DemosConfig = field(default_factory=DemosConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    gap: GapConfig = field(default_factory=GapConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    robot_text: ActionTextConfig = field(default_factory=ActionTextConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    midtrain: MidtrainConfig = field(default_factory=MidtrainConfig)
    finetune: FinetuneConfig
    rollout: RolloutConfig = field(default_factory=RolloutConfig)

    def selectors(self) -> list[Selector]:
        """Everything that ranks the pool in this recipe, the estimator first: others take its counts."""
        used = {variant.midtrain_on for variant in self.variants} | set(self.compared)
        return ["estimator", *(name for name in get_args(Selector) if name in used - {"estimator"})]

    def trainings(self) -> list[Training]:
        """Every variant with every seed, seed after seed."""
        several = len(self.training_seeds) > 1
        return [
            Training(variant, seed, f"{variant.name}-seed-{seed}" if several else variant.name)
            for seed in self.training_seeds
            for variant in self.variants
        ]

    def tunings(self) -> list[Tuning]:
        """A policy for every training and every benchmark, benchmark after benchmark."""
        return [Tuning(training, name) for name in self.benchmarks or ("",) for training in self.trainings()]

    def check(self) -> None:
        """Raise `ConfigError` or `ValueError` on what would fail later, before hours of work are behind it."""
        names = [variant.name for variant in self.variants]
        if not names:
            raise ConfigError("a recipe needs at least one variant")
        if len(set(names)) != len(names):
            raise ConfigError(f"variants must have different names, not {names}")
        if bad := [n for n in names if not n.replace("-", "").replace("_", "").isalnum()]:
            raise ConfigError(f"variant names become folders: letters, digits, - and _ only, not {bad}")
        if not self.training_seeds or len(set(self.training_seeds)) != len(self.training_seeds):
            raise ConfigError(f"training_seeds must be different numbers, at least one, not {self.training_seeds}")
        for config in (self.demos, self.robot_text, self.audit, self.midtrain, self.finetune, self.rollout):
            config.check()
        for name, benchmark in self.benchmarks.items():
            benchmark.check(name)
        if self.benchmarks and self.data.target is not None:
            raise ConfigError("with benchmarks, each has a target of its own: leave data.target out")
        if self.target_frames is not None and (not self.benchmarks or self.target_frames < 1):
            raise ConfigError("target_frames is a number from 1 on, and goes with benchmarks")
        if self.selection_from is not None and (self.select_with or self.data.pool is not None):
            raise ConfigError("selection_from brings its own pool and features: leave data.pool and select_with out")
        if not self.scale > 0:
            raise ConfigError(f"scale is {self.scale}; it must be above 0 (1: as written)")
        target_prompt("", self.embed.prompt)
        target_prompt("", self.other_prompt)


def named_recipes() -> dict[str, Path]:
    """Recipes that come with the package, by name."""
    folder = Path(str(resources.files("embodied_midtrain.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by its name in the package, or from a YAML file.

    Raises:
        ConfigError: where there is none, or a key or value in it is wrong.
    """
    path = named_recipes().get(str(name_or_path), Path(name_or_path))
    recipe = structure(Recipe, load_yaml(path), path.name)
    recipe.check()
    return recipe
