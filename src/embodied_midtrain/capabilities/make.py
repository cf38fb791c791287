"""`emt capability`: embodied questions of seven domains under one budget, as a pool of one source a domain.

The domains of "Rethinking VLM Representation for VLA Initialization" (arXiv 2605.25802), even by domain; labels are
exact, from simulators and trajectories. Which questions are asked is chosen so that kinds and answers come out even.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Artifact, Skips, StageError, StageRun, open_stage, write_json
from embodied_midtrain.capabilities.action import guessed
from embodied_midtrain.capabilities.domains import CEILINGS, DOMAINS
from embodied_midtrain.capabilities.filling import REMEDY, Filling
from embodied_midtrain.capabilities.posing import Quotas
from embodied_midtrain.capabilities.splits import Split
from embodied_midtrain.config import did_you_mean
from embodied_midtrain.coupled.baselines import baselines
from embodied_midtrain.coupled.couple import read_facts
from embodied_midtrain.coupled.measured import MeasuredConfig
from embodied_midtrain.coupled.opening import Traces, open_traces
from embodied_midtrain.coupled.tally import Tally
from embodied_midtrain.episodes import Robots
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.sources.opening import POOL_STAGE, open_pool
from embodied_midtrain.sources.registry.fetch import cache_folder

SUMMARY = "capability.json"


@dataclass(frozen=True)
class CapabilityConfig:
    """Which questions are asked, and how many."""

    domains: tuple[str, ...] = ()
    """Some of spatial, grounding, plan, camera, egocentric, temporal, action; none named: all that can be made of what
    is given."""
    budget: int = 7000
    """Samples in all, even by domain. A domain that cannot give its share gives what it has."""
    split: Split = "train"
    """Scenes and episodes to train on, or the held-out ones: which is which goes by their names."""
    chunk: int = 8
    """Actions in an answer of the domain action."""
    seed: int = 0
    """Chooses scenes, questions and wordings."""

    def check(self) -> None:
        """Raise `ValueError` on settings that cannot be meant."""
        for name in self.domains:
            if name not in DOMAINS:
                raise ValueError(f"there is no domain '{name}'; {did_you_mean(name, DOMAINS)}")
        if len(set(self.domains)) < len(self.domains):
            raise ValueError(f"a domain is named twice: {' '.join(self.domains)}")
        if self.budget < max(1, len(self.domains)) or self.chunk < 1:
            raise ValueError(
                f"budget {self.budget} and chunk {self.chunk}: wanted 1 sample a domain, and 1 action, at least"
            )


def capability(
    out: Path | str,
    config: CapabilityConfig,
    *,
    episodes: Traces | None = None,
    robots: Robots | None = None,
    skips: Skips | None = None,
    pools: Mapping[str, Path | str] | None = None,
    cache: Path | None = None,
    overwrite: bool = False,
) -> Artifact:
    """A pool of one source a domain, with what each question is about beside it.

    Args:
        episodes: what is true of robot episodes; for the domains that ask about looks.
        robots: episodes with their actions; for the domain action.
        skips: the list that the reader of `robots` adds to; it goes into the artifact.
        pools: what stands for a domain in place of generated questions, by its name: what `open_pool` takes.
        cache: where light copies of textures are kept; by default as for `sources.registry`.

    Raises:
        StageError: where nothing can be asked, a domain's material is missing, or nothing can be rendered.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    owned = pools or {}
    domains = _chosen(config, episodes, robots, owned)
    inputs: dict[str, Artifact | str] = {
        f"pool {name}": open_pool(place, skips=Skips()).fingerprint() for name, place in owned.items()
    }
    if episodes is not None:
        inputs["episodes"] = episodes.fingerprint
    if robots is not None:
        inputs["robots"] = robots.fingerprint()
    with open_stage(out, POOL_STAGE, config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        each, rest = divmod(config.budget, len(domains))
        wanted = {name: each + (number < rest) for number, name in enumerate(domains)}
        with progress_bar("capability domains", config.budget) as bar:
            work = Filling(run, wanted, bar, split=config.split, seed=config.seed, chunk=config.chunk)
            for name, place in owned.items():
                work.own(name, place)
            if episodes is not None:
                work.looks(episodes)
            if robots is not None:
                work.actions(robots)
            work.scenes(cache_folder(cache))
        if skips is not None:
            run.skips.rows.extend(skips.rows)
        return _finish(run, wanted)


def _chosen(
    config: CapabilityConfig, episodes: Traces | None, robots: Robots | None, owned: Collection[str]
) -> list[str]:
    if strangers := set(owned) - set(config.domains or DOMAINS):
        raise ValueError(f"pools are given for {', '.join(sorted(strangers))}: no such domain is asked for")
    given = {"scenes": True, "views": True, "looks": episodes is not None, "actions": robots is not None}
    lacking = [name for name, d in DOMAINS.items() if name not in owned and not any(given[m] for m in d.materials)]
    if named := [name for name in config.domains if name in lacking]:
        raise StageError(f"{', '.join(named)}: made of robot episodes, give --demos. {REMEDY}")
    return [name for name in DOMAINS if name in (config.domains or set(DOMAINS) - set(lacking))]


def _finish(run: StageRun, wanted: Quotas) -> Artifact:
    made, left = Counter[str](), dict[str, dict[str, Counter[str]]]()
    reasons = {row["reason"] for row in run.skips.rows}
    for record in run.parts():
        made.update(record["samples"])
        reasons.update(row["reason"] for row in record["skipped"])
        for domain, kind, reason, times in record["left"]:
            left.setdefault(domain, {}).setdefault(kind, Counter())[reason] += times
            reasons.add(reason)
    if not made.total():
        raise StageError(f"no question can be asked ({'; '.join(sorted(reasons))}). {REMEDY}")
    tallies = {domain: Tally() for domain in wanted}
    for row in read_facts(run.out):
        tallies[row["source"]].add(row)
    summary: dict[str, dict[str, Any]] = {
        domain: {
            "about": DOMAINS[domain].about,
            "wanted": quota,
            "samples": made[domain],
            "scenes": len(tallies[domain].episodes),
            "kinds": tallies[domain].kinds(),
            "baselines": _baselines(tallies[domain]),
            "left_out": left.get(domain, {}),
        }
        for domain, quota in wanted.items()
    }
    write_json(run.file(SUMMARY), summary)
    sources = {name: {"samples": made[name], "group": "embodied"} for name in sorted(made)}
    kinds = {name: {kind: row["questions"] for kind, row in facts["kinds"].items()} for name, facts in summary.items()}
    return run.finish({"used": made.total(), "wanted": dict(wanted), "sources": sources, "kinds": kinds})


def _baselines(tally: Tally) -> dict[str, Any]:
    """As `coupled.baselines`; of actions, the share of numbers that the commonest one at their place gets right."""
    if acted := tally.first.get("action"):
        return {"action": {"questions": tally.questions["action"], "majority": guessed(acted), "words": None}}
    return baselines(tally, CEILINGS)


def capability_command(
    out: Path,
    config: CapabilityConfig = CapabilityConfig(),
    demos: Path | None = None,
    measured: MeasuredConfig = MeasuredConfig(),
    pools: dict[str, Path] | None = None,
    cache: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Embodied questions of seven domains with exact answers, under one budget, as a pool.

    Spatial, Grounding and Camera Prediction come from tabletop scenes without a robot; Plan, Egocentric, Temporal and
    Action (and half of Spatial and Grounding) from demonstrations that were recorded with --truth-every. Each domain is
    a source of the pool. How often each answer is given, how well questions are answered without their pictures, and
    what could not be asked for which reason stand in capability.json; what each question is about in questions-*.jsonl.

    Examples:
        emt capability --out runs/scenes --domains spatial grounding camera --budget 3000
        emt demos --out runs/told --tasks pick-place-v3 drawer-open-v3 --episodes 20 --truth-every 5
        emt capability --out runs/domains --demos runs/told --budget 7000
        emt capability --out runs/held-out --demos runs/told --budget 1400 --split held-out
        emt capability --out runs/own --domains grounding --pools grounding data/refcoco.yaml --budget 1000
        emt midtrain --pool runs/domains --out runs/adapted --weights grounding 0.5 egocentric 0.5

    Args:
        out: folder for the pool.
        demos: demonstrations that were recorded with --truth-every; or robot data with a state, which tell less.
        pools: pools of your own that stand for a domain, as name and path: whatever 'emt embed --pool' takes.
        cache: where light copies of textures are kept; by default $EMT_CACHE, else ~/.cache/embodied-midtrain.
        overwrite: replace a result that was made from other inputs or settings.
    """
    config.check()
    # Actions can be had of data that say nothing else.
    told = demos is not None and any(DOMAINS[name].look for name in config.domains or DOMAINS)
    skips = Skips()
    artifact = capability(
        out,
        config,
        episodes=open_traces(demos, measured) if told and demos is not None else None,
        robots=None if demos is None else open_robots(demos, skips),
        skips=skips,
        pools=pools,
        cache=cache,
        overwrite=overwrite,
    )
    counts = artifact.counts
    for name, wanted in counts["wanted"].items():
        given, kinds = counts["sources"].get(name, {"samples": 0})["samples"], len(counts["kinds"][name])
        what = f"{kinds:>2} kinds" if kinds else "of your own" if given else "nothing"
        short = f"; {wanted} wanted" if given < wanted else ""
        note = ": 'emt compose' repeats samples, and says how often" if short and given else ""
        print(f"{name:<12}{given:>8} samples, {what}{short}{note}")
    print(f"{counts['used']} samples in {out}")
