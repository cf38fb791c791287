"""A policy as vla-eval's model server: looks in, actions of the benchmark's convention out, several clients a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from vla_eval.model_servers.base import SessionContext
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.specs import IMAGE_RGB, LANGUAGE, DimSpec

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.benchmarks.protocol import Actor
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.conversions import gripper_line
from embodied_midtrain.robots.convert import convert_actions
from embodied_midtrain.serving.components import components
from embodied_midtrain.serving.observation import Look, read_look
from embodied_midtrain.serving.protocol import Evaluation, protocol_of


class Player(PredictModelServer):
    """Answers observations of vla-eval's clients.

    Args:
        actor: the policy.
        evaluation: what is played; None: whatever known benchmark a client names.
        camera: which picture the policy sees, in place of the protocol's.
        convert: convert actions to the benchmark's convention where both say enough for it.
    """

    def __init__(
        self,
        actor: Actor,
        *,
        evaluation: Evaluation | None = None,
        camera: str | None = None,
        convert: bool = False,
        max_batch: int = 16,
        max_wait: float = 0.005,
    ) -> None:
        super().__init__(chunk_size=actor.executed, max_batch_size=max_batch, max_wait_time=max_wait)
        self.actor = actor
        self.fixed = evaluation
        self._camera = camera
        self._convert = convert
        if evaluation is not None:
            self.check(evaluation)

    def check(self, evaluation: Evaluation) -> None:
        """Raise StageError where the policy's actions are not what the benchmark takes."""
        evaluation.check(self.actor.spec, convert=self._convert, policy="the policy")

    def evaluation_for(self, benchmark: str | None) -> Evaluation | None:
        """What a client plays that names this benchmark class (None: a client that names none).

        Raises:
            StageError: another benchmark than is served, one that nobody has said the actions of, or other specs.
        """
        if benchmark is None:
            return self.fixed
        if self.fixed is not None:
            if benchmark not in self.fixed.classes:
                raise StageError(
                    f"this server plays {self.fixed.settings.title} ({', '.join(self.fixed.classes)}), not {benchmark}"
                )
            return self.fixed
        found = protocol_of(benchmark)
        if found is None:
            raise StageError(
                f"nobody has said what an action means to {benchmark}, so that nothing can be compared: write a "
                "protocol (docs/serving.md) and start the server with --benchmark FILE.yaml"
            )
        self.check(found)
        return found

    # -- what vla-eval asks for --------------------------------------------------------------------------------------

    def get_action_spec(self) -> dict[str, DimSpec]:
        return self.announced(self.fixed)[0]

    def get_observation_spec(self) -> dict[str, DimSpec]:
        return self.announced(self.fixed)[1]

    def announced(self, evaluation: Evaluation | None) -> tuple[dict[str, DimSpec], dict[str, DimSpec]]:
        """Action and observation specs for a client that plays this."""
        spec = evaluation.spec if evaluation else self.actor.spec
        rows = components(spec, evaluation.settings.announced if evaluation else None)
        camera = self.camera(evaluation)
        pictures = {camera: IMAGE_RGB} if camera else {}
        return {name: DimSpec.from_dict(row) for name, row in rows.items()}, {**pictures, "language": LANGUAGE}

    def facts(self, evaluation: Evaluation | None) -> dict[str, Any]:
        """What an announcement says beyond vla-eval's own: the whole spec, horizons and limits."""
        found: dict[str, Any] = {
            "policy": self.actor.identity,
            "spec": (evaluation.spec if evaluation else self.actor.spec).to_json(),
            "chunk": self.actor.chunk,
            "executed": self.actor.executed,
            "size": self.actor.size,
        }
        if evaluation is not None:
            own = evaluation.settings
            found["protocol"] = {"name": evaluation.name, "steps": own.steps, "episodes": own.episodes}
            found["protocol"] |= {"chunk": own.chunk, "executed": own.executed}
        return found

    def camera(self, evaluation: Evaluation | None) -> str | None:
        return self._camera or (evaluation.settings.camera if evaluation else None)

    # -- playing -----------------------------------------------------------------------------------------------------

    async def on_observation(self, obs: Any, ctx: SessionContext) -> None:
        """See `ModelServer`.

        Raises:
            BadObservation: before anything of it comes near other clients' batch.
        """
        evaluation: Evaluation | None = getattr(ctx, "evaluation", self.fixed)
        mirrored = evaluation is not None and evaluation.settings.frames == "mirrored"
        look = read_look(obs, self.camera(evaluation), mirrored=mirrored)
        if look.restart:
            self._chunk_buffers.pop(ctx.session_id, None)
        await super().on_observation({"look": look}, ctx)

    def predict_batch(self, obs_batch: list[dict[str, Any]], ctx_batch: list[SessionContext]) -> list[dict[str, Any]]:
        looks: list[Look] = [obs["look"] for obs in obs_batch]
        chunks: dict[int, NDArray[np.float32]] = {}
        for shape in sorted({look.frame.shape for look in looks}):
            places = [n for n, look in enumerate(looks) if look.frame.shape == shape]
            actions = self.actor.act(np.stack([looks[n].frame for n in places]), [looks[n].instruction for n in places])
            chunks.update(zip(places, np.asarray(actions, np.float32), strict=True))
        return [
            {"actions": self._sent(chunks[n], getattr(ctx, "evaluation", self.fixed))}
            for n, ctx in enumerate(ctx_batch)
        ]

    def _sent(self, actions: NDArray[np.float32], evaluation: Evaluation | None) -> NDArray[np.float32]:
        """A chunk [time, width] in the benchmark's convention."""
        if not np.isfinite(actions).all():
            raise StageError("the policy gives actions that are no numbers: its training has diverged; train it again")
        if evaluation is None or evaluation.spec == self.actor.spec:
            return actions
        converted = convert_actions(actions, self.actor.spec, evaluation.spec)
        return np.clip(converted, evaluation.spec.low, evaluation.spec.high).astype(np.float32)


class Gripper:
    """Opens only after some predictions to open in a row (VLM4VLA on SimplerEnv: two); closes at once."""

    def __init__(self, spec: ActionSpec, opens_after: int) -> None:
        self._at, self._after = spec.gripper, opens_after
        self._open, self._way = gripper_line(spec)
        self._row = 0
        self._state: float | None = None

    def __call__(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """One action [width] as it is executed."""
        if self._at is None or self._after < 2:
            return action
        closed = (float(action[self._at]) - self._open) / self._way > 0.5
        self._row = 0 if closed else self._row + 1
        # At first it is as the policy wants it: there is nothing to hold on to.
        if self._state is None or closed or self._row >= self._after:
            self._state = float(action[self._at])
        held = action.copy()
        held[self._at] = self._state
        return held
