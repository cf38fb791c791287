"""Several robots in one recipe: the data of each, how its policy acts, and where that is evaluated.

EmbodiedMidtrain's table 1 selects once, against all robot data together, mid-trains each variant once, and fine-tunes
and evaluates each on every benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from embodied_midtrain.benchmarks.protocol import open_benchmark
from embodied_midtrain.benchmarks.rollout import RolloutConfig
from embodied_midtrain.config import ConfigError
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.actions import check_specs
from embodied_midtrain.serving.protocol import open_protocol


@dataclass(frozen=True, kw_only=True)
class Arena:
    """Where policies are evaluated, and how they act there."""

    chunk: int
    """Actions predicted at a time."""
    executed: int
    """How many of them are executed before the next look."""
    title: str = ""
    """For readers, such as "CALVIN ABC-D"."""
    protocol: str = ""
    """Evaluate by vla-eval: a protocol of 'emt serve --list-benchmarks', or a YAML file. The recipe says the commands,
    and its next call reads what they found. Empty: by the built-in loop."""
    convert: bool = False
    """With a protocol: convert actions to the benchmark's convention."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """Without a protocol: what is played in the built-in loop."""

    def check(self, name: str) -> None:
        """Raise `ConfigError` or `ValueError` on what cannot be meant."""
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"names of benchmarks become folders: letters, digits, - and _ only, not {name!r}")
        if not 1 <= self.executed <= self.chunk:
            raise ConfigError(f"benchmarks.{name}: executed is {self.executed}; it must be 1 to chunk ({self.chunk})")
        if self.protocol:
            open_protocol(self.protocol)
        else:
            self.rollout.check()

    def check_actions(self, spec: ActionSpec, data: str) -> None:
        """Raise `StageError` where a policy of these data could not act on the benchmark: before any training."""
        if self.protocol:
            open_protocol(self.protocol).check(spec, convert=self.convert, policy=data)
        else:
            benchmark = open_benchmark(self.rollout.benchmark)
            check_specs(benchmark.spec, spec, wanted_by=benchmark.name, given_by=data)

    @property
    def where(self) -> str:
        """For readers."""
        return f"vla-eval, {self.protocol}" if self.protocol else f"{self.rollout.benchmark}, built-in loop"


@dataclass(frozen=True, kw_only=True)
class RobotBenchmark(Arena):
    """One robot data set and the benchmark that policies trained on it are evaluated on."""

    target: Path
    """Robot episodes: HDF5, LeRobot, RLDS or CALVIN (docs/robots.md). A relative path starts from data.folder."""
    home: str = ""
    """Where the data are to be had: said where they are missing."""
    camera: str | None = None
    """Which pictures to take where the data hold several."""
    split: str = "train"
    """Of an RLDS data set."""
