"""One training by one process, or by several that `accelerate launch` (or torchrun) has started.

Every process makes the same plan and takes its share of each step; gradients are averaged by DDP, or weights, gradients
and optimiser are split by FSDP where accelerate's settings ask for it. The first process alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from embodied_midtrain.artifacts import Artifact, StageError, StageRun, join_stage, open_stage
from embodied_midtrain.extras import require


@dataclass(frozen=True)
class Team:
    """This process among those that train together.

    Attributes:
        rank: its number; the first is 0.
        size: how many there are.
        sharded: whether weights are split among them (FSDP).
        device: where this process computes, where accelerate has given it a place; None: as the config says.
    """

    rank: int = 0
    size: int = 1
    sharded: bool = False
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    # -- words -------------------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(v) for v in tensor.tolist()]

    def all_say(self, value: Any) -> list[Any]:
        """What every process says, in order of rank, to every process."""
        if self.size == 1:
            return [value]
        said: list[Any] = [None] * self.size
        dist.all_gather_object(said, value)
        return said

    def leave(self) -> None:
        """At the end of a command: close the connections."""
        if self.size > 1:
            dist.destroy_process_group()

    # -- weights -----------------------------------------------------------------------------------------------------

    def wrap(self, module: nn.Module, blocks: Sequence[str]) -> nn.Module:
        """`module` such that backward passes through it leave every process with the whole team's gradient.

        With FSDP its parameters are replaced, in place, by shards: collect them afterwards.

        Args:
            blocks: class names of the layers that FSDP gathers one at a time.
        """
        if self.size == 1:
            return module
        if self.sharded:
            return _shard(module, blocks)
        device = [self.device] if self.device is not None and self.device.type == "cuda" else None
        # Left to find out by itself which weights were used, DDP also leaves its buckets as they are; laid out anew
        # after the first step, a resumed run would add in another order and end with other bits.
        return nn.parallel.DistributedDataParallel(module, device_ids=device, find_unused_parameters=True)

    def sum_gradients(self, module: nn.Module, now: bool) -> None:
        """Whether the next backward pass ends with the gradients' exchange: at the last micro-batch of a step."""
        if self.size == 1:
            return
        if self.sharded:
            module.set_requires_gradient_sync(now)  # type: ignore[operator]
        else:
            # What DDP's no_sync() sets, which cannot be held open around a generator's loss.
            module.require_backward_grad_sync = now  # type: ignore[assignment]

    # -- a stage's folder --------------------------------------------------------------------------------------------

    def open_stage(
        self, out: Path, stage: str, config: Any, inputs: Mapping[str, Artifact | str], *, overwrite: bool = False
    ) -> StageRun:
        """`artifacts.open_stage` by the first process; the others join it and only read.

        Raises:
            StageError: by all of them where the first one cannot open it.
        """
        run: StageRun | None = None
        error: StageError | None = None
        if self.first:
            try:
                run = open_stage(out, stage, config, inputs, overwrite=overwrite)
            except StageError as found:
                error = found
        said = self.all_say(str(error) if error else None)[0]
        if error is not None:
            raise error
        if said is not None:
            raise StageError(f"the first process could not open {out}")
        return run if run is not None else join_stage(out)


ALONE = Team()


def join_team(device: str = "auto") -> Team:
    """The team that the environment says this process belongs to; `ALONE` where nothing launched it.

    Raises:
        StageError: where several processes were launched and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    state = require("accelerate.state", "train")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    # The first process may render for hours while the others wait.
    found = state.PartialState(cpu=on_cpu, timeout=timedelta(hours=48))
    return Team(found.process_index, found.num_processes, _sharding_asked(), found.device)


def whole(tensor: Tensor) -> Tensor:
    """A tensor, put together where it is split among the processes; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, other: Tensor) -> Tensor:
    """`value`, which is whole in every process, where `other` is and split as it is."""
    if not isinstance(other, DTensor):
        return value.to(other.device)
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


def _sharding_asked() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def _shard(module: nn.Module, blocks: Sequence[str]) -> nn.Module:
    """FSDP2, with accelerate's settings of resharding and offload.

    Not by `Accelerator.prepare`: that shards on GPUs only, and so could not be tested everywhere.
    """
    from torch.distributed.fsdp import fully_shard

    plugin = require("accelerate", "train").FullyShardedDataParallelPlugin(fsdp_version=2)
    settings: dict[str, Any] = {"reshard_after_forward": bool(plugin.reshard_after_forward)}
    if plugin.cpu_offload:
        settings["offload_policy"] = plugin.cpu_offload
    kinds = set(blocks)
    for part in list(module.modules()):
        if type(part).__name__ in kinds:
            fully_shard(part, **settings)
    fully_shard(module, **{**settings, "reshard_after_forward": False})
    return module
