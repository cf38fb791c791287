"""The server's loop: vla-eval's messages over a WebSocket, none of which can end it.

vla-eval's own loop takes messages of any size, ends a connection without a word on one that it cannot read, and only
warns of specs that differ. This one speaks the same protocol.
"""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import anyio
import numpy as np
import websockets
from anyio.abc import TaskStatus
from anyio.to_thread import run_sync
from PIL import Image
from vla_eval.model_servers.base import SessionContext
from vla_eval.protocol.messages import Message, MessageType, make_hello_payload, pack_message, unpack_message
from websockets.asyncio.server import serve as open_socket

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.samples import MAX_PIXELS
from embodied_midtrain.serving.observation import BadObservation
from embodied_midtrain.serving.player import Gripper, Player
from embodied_midtrain.serving.protocol import Evaluation

logger = logging.getLogger(__name__)
MEGABYTE = 2**20
DRAWN_TO_SIZE = ("embodied_midtrain.serving.libero:LiberoAsBuiltIn",)
"""Benchmark classes that draw pictures of the size that a policy wants."""
REFUSED = 1008
"""WebSocket's close code for a peer that breaks the rules of the house."""


class Session(SessionContext):
    """One client's episode."""

    def __init__(self, send: Callable[[Message], Any], evaluation: Evaluation | None, connection: str) -> None:
        super().__init__(session_id=connection, episode_id=str(uuid.uuid4()))
        self._send = send
        self.evaluation = evaluation
        self.sequence = 0
        self._gripper = Gripper(evaluation.spec, evaluation.settings.opens_after) if evaluation else None

    async def send_action(self, action: dict[str, Any]) -> None:
        actions = action["actions"]
        if self._gripper is not None and actions.ndim == 1:
            actions = self._gripper(actions)
        await self._send(Message(MessageType.ACTION, {"actions": np.asarray(actions, np.float32)}, self.sequence))

    def advance(self) -> None:
        self._increment_step()


class Connection:
    """One client, from HELLO to its end."""

    def __init__(self, socket: Any, player: Player) -> None:
        self._socket = socket
        self._player = player
        self._name = str(uuid.uuid4())
        self._session = self._begin(None)
        self._evaluation: Evaluation | None = player.fixed
        self._playing = False

    def _begin(self, evaluation: Evaluation | None) -> Session:
        return Session(self._send, evaluation, self._name)

    async def _send(self, message: Message) -> None:
        await self._socket.send(pack_message(message))

    async def _refuse(self, sequence: int, words: str) -> None:
        logger.warning("%s: refused: %s", self._name[:8], words)
        await self._send(Message(MessageType.ERROR, {"error": words}, sequence))

    async def run(self) -> None:
        """Answer until the client leaves; whatever it sends, only its own connection may end."""
        try:
            async for raw in self._socket:
                try:
                    message = await run_sync(partial(read_message, raw))
                except BadObservation as error:
                    await self._refuse(0, str(error))
                    continue
                if not await self._answer(message):
                    return
        except websockets.exceptions.ConnectionClosed as closed:
            logger.info("%s: left (%s)", self._name[:8], closed)
        finally:
            if self._playing:
                await self._player.on_episode_end({}, self._session)

    async def _answer(self, message: Message) -> bool:
        """Whether the connection goes on."""
        kind, payload = message.type, message.payload
        if kind == MessageType.HELLO:
            return await self._hello(message)
        if kind == MessageType.EPISODE_START:
            if self._playing:
                await self._player.on_episode_end({}, self._session)
            self._session = self._begin(self._evaluation)
            await self._player.on_episode_start(payload, self._session)
            self._playing = True
        elif kind == MessageType.OBSERVATION:
            await self._observation(message)
        elif kind == MessageType.EPISODE_END:
            await self._player.on_episode_end(payload, self._session)
            self._playing = False
        else:
            logger.warning("%s: sent %s: %s", self._name[:8], kind.value, str(payload)[:300])
        return True

    async def _hello(self, message: Message) -> bool:
        named = message.payload.get("benchmark")
        try:
            self._evaluation = self._player.evaluation_for(named if isinstance(named, str) else None)
        except StageError as error:
            # Before the first episode, and for good: a run with other conventions is worth nothing.
            await self._refuse(message.seq, str(error))
            await self._socket.close(REFUSED, "specs differ: see the server's words")
            return False
        self._session = self._begin(self._evaluation)
        actions, looks = self._player.announced(self._evaluation)
        payload = make_hello_payload(
            model_server="embodied-midtrain",
            capabilities={},
            observation_params={"size": self._player.actor.size} if named in DRAWN_TO_SIZE else {},
            action_spec={name: spec.to_dict() for name, spec in actions.items()},
            observation_spec={name: spec.to_dict() for name, spec in looks.items()},
            embodied_midtrain=self._player.facts(self._evaluation),
        )
        await self._send(Message(MessageType.HELLO, payload, message.seq))
        logger.info("%s: plays %s", self._name[:8], self._evaluation.settings.title if self._evaluation else "unnamed")
        return True

    async def _observation(self, message: Message) -> None:
        if not self._playing:
            await self._refuse(message.seq, "an observation before the episode's start: send episode_start first")
            return
        self._session.sequence = message.seq
        try:
            await self._player.on_observation(message.payload, self._session)
        except BadObservation as error:
            await self._refuse(message.seq, str(error))
        except websockets.exceptions.ConnectionClosed:
            raise
        except Exception as error:
            # A policy's fault is told to the one who asked; the others play on.
            logger.exception("%s: no action", self._name[:8])
            await self._refuse(message.seq, f"the policy failed: {type(error).__name__}: {error}")
        else:
            self._session.advance()


def read_message(raw: Any) -> Message:
    """A message out of what came over the wire.

    Raises:
        BadObservation: where it is none.
    """
    if not isinstance(raw, bytes):
        raise BadObservation("messages are binary (msgpack), this one is text")
    try:
        message = unpack_message(raw)
    except ValueError as error:
        raise BadObservation(f"the message cannot be read: {error}") from error
    if not isinstance(message.payload, dict) or not isinstance(message.seq, int):
        raise BadObservation("the message cannot be read: payload must be a mapping, seq a whole number")
    return message


def _health(connection: Any, request: Any) -> Any:
    return connection.respond(HTTPStatus.OK, '{"status": "ok"}\n') if request.path == "/health" else None


async def serve_async(
    player: Player,
    *,
    host: str,
    port: int,
    max_megabytes: float,
    task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; tells the port once it listens. Larger messages end their connection (code 1009)."""
    # Small files can hold huge pictures.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)

    async def handle(socket: Any) -> None:
        await Connection(socket, player).run()

    async with anyio.create_task_group() as group:
        await player.on_serve_start(group)
        async with open_socket(
            handle,
            host,
            port,
            process_request=_health,
            compression=None,
            max_size=int(max_megabytes * MEGABYTE),
            # A first forward pass may take longer than a ping may wait.
            ping_interval=None,
        ) as server:
            task_status.started(server.sockets[0].getsockname()[1])
            await anyio.sleep_forever()
