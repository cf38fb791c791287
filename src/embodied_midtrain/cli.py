"""The `emt` command: one thin subcommand a stage.

Only the module of the command that was given is imported, so that `emt --help` is instant and an extra that is
not installed is missed only by the command that needs it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import select
import sys
from collections.abc import Sequence

from embodied_midtrain import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("recipes.run:quickstart_command", "the whole way, small: pool to closed-loop result and report"),
    "run": ("recipes.run:run_command", "run the stages of a recipe file; a second call goes on"),
    "study": ("studies.run:study_command", "many variants, seeds, heads and benchmarks as one job, with tests"),
    "pool build": ("sources.registry.build:build_command", "make the default pool from registry packages"),
    "pool inspect": ("sources.inspect:inspect_command", "what is in a pool: counts, texts, images, examples, faults"),
    "couple": ("coupled.couple:couple_command", "questions from robot episodes: scene, task and trajectory"),
    "capability": ("capabilities.make:capability_command", "questions of seven domains: space, plan, camera, time ..."),
    "demos": ("benchmarks.demos:demos_command", "record demonstrations of scripted experts"),
    "robots inspect": ("robots.inspect:inspect_command", "what robot data hold, and what looks wrong"),
    "robots export": ("robots.export:export_command", "robot data as a LeRobot data set"),
    "robots as-text": ("robots.action_text:as_text_command", "robot frames as samples whose answers are actions"),
    "embed": ("features.extract:embed_command", "features of pool and target under a frozen backbone"),
    "gap": ("gap.measure:gap_command", "how far pool and target are apart: MMD, diversity, map"),
    "neighbours": ("gap.neighbours:neighbours_command", "robot frames nearest to a sample, samples nearest to a frame"),
    "score": ("proximity.score:score_command", "score samples by likelihood under a backbone, or by words alone"),
    "select": ("proximity.select:select_command", "score every sample and keep the closest"),
    "compare": ("proximity.compare:compare_command", "several selections side by side: ranks, agreement, overlap"),
    "compose": ("midtraining.compose:compose_command", "several pools as one, under a fixed budget"),
    "export": ("sources.export.run:export_command", "a selection in the form of the tool that trains on it"),
    "export model": ("release.export:export_model_command", "a backbone or a policy for others, with its model card"),
    "push": ("release.push:push_command", "send an exported model to the model hub"),
    "audit": ("diagnostics.audit:audit_command", "did the ranking find the robot's world, or a shortcut?"),
    "retention": ("diagnostics.retention:retention_command", "held-out questions before and after: what was kept"),
    "drift": ("diagnostics.drift:drift_command", "how far a backbone moved: CKA by layer, distance of weights"),
    "drift along": ("diagnostics.course:along_command", "the same at each milestone of a policy's training"),
    "probe": ("diagnostics.probe:probe_command", "what frozen features say of the robot: actions, gripper, objects"),
    "probe predict": ("diagnostics.predict:predict_command", "which figure of a variant goes with closed-loop success"),
    "explore": ("explore.explore:explore_command", "pool, selection and robot frames on a map, in the browser"),
    "midtrain": ("midtraining.midtrain:midtrain_command", "train a backbone on a selection"),
    "finetune": ("policies.finetune:finetune_command", "train a policy from a backbone"),
    "rollout": ("benchmarks.rollout:rollout_command", "roll a policy out in closed loop"),
    "serve": ("serving.serve:serve_command", "a policy as a server for vla-eval's benchmarks"),
    "rollouts play": ("benchmarks.comparison:play_command", "roll several policies out on the same episodes, compare"),
    "rollouts compare": ("benchmarks.comparison:compare_command", "finished rollouts side by side, with paired tests"),
    "report": ("report.page:report_command", "one self-contained page with everything"),
    "backbone train": ("backbones.compact.train:train_command", "train the compact backbone's connector again"),
    "backbone check": ("backbones.compact.check:check_command", "what the compact backbone sees: captions, pointing"),
    "doctor": ("doctor:doctor_command", "what this machine has and lacks, and the command that mends it"),
}

READ_THEMSELVES = ("quickstart", "run")
"""Commands that are given the words as they are: a recipe file's values are their options' defaults."""

EXAMPLES = """examples:
  emt quickstart                                  everything, small, on a laptop
  emt doctor                                      is this machine ready?
  emt embed --help                                options of one stage, with examples
  emt run my-recipe.yaml --finetune.steps 2000    a recipe with one setting changed
"""


def usage() -> str:
    lines = [
        "usage: emt COMMAND [options]",
        "",
        "Choose, mid-train and prove a better starting point for robot policies.",
        "",
    ]
    lines += [f"  {name:<18}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join([*lines, "", EXAMPLES])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 failed, 2 a mistake in the call, 130 interrupted)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if given[0] in ("-V", "--version"):
        print(f"emt {__version__}")
        return 0
    name, rest = _command(given)
    if name is None:
        near = difflib.get_close_matches(" ".join(given[:2]), COMMANDS, n=1) or difflib.get_close_matches(
            given[0], COMMANDS, n=1
        )
        print(f"emt: unknown command '{given[0]}'" + (f"; did you mean '{near[0]}'?" if near else ""), file=sys.stderr)
        print("emt --help lists the commands.", file=sys.stderr)
        return 2
    return _call(name, rest)


def _command(given: list[str]) -> tuple[str | None, list[str]]:
    for words in (2, 1):
        if " ".join(given[:words]) in COMMANDS:
            return " ".join(given[:words]), given[words:]
    return None, given


def _call(name: str, rest: list[str]) -> int:
    from embodied_midtrain.allocation import keep_large_blocks
    from embodied_midtrain.artifacts import StageError
    from embodied_midtrain.config import parse
    from embodied_midtrain.episodes import BadEpisode
    from embodied_midtrain.samples import BadSample

    keep_large_blocks()
    module, function = COMMANDS[name][0].split(":")
    try:
        command = getattr(importlib.import_module(f"embodied_midtrain.{module}"), function)
        if name in READ_THEMSELVES:
            command(rest)
        else:
            parse(command, rest, prog=f"emt {name}")
    except KeyboardInterrupt:
        print(f"\nemt {name}: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if _is_read():
            raise
        return 141
    except (StageError, BadSample, BadEpisode, ValueError) as error:
        print(f"emt {name}: {error}", file=sys.stderr)
        return 1
    return 0


def _is_read() -> bool:
    """Whether someone still reads what is printed; after `| head` nobody does, and that is no fault."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return True
    # What is left in the buffer would be complained about at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


if __name__ == "__main__":
    sys.exit(main())
