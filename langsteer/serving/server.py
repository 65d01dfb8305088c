"""Serve a policy of ours to other processes by openpi's protocol.

Example::

    langsteer-serve policy.ckpt_path=outputs/checkpoints/x/latest.ckpt port=8000

Each connection has its own memory, so several evaluations can share a server. A task begins with a
request with ``reset``, with another ``prompt``, and with a new connection.
"""

import http
import logging
import threading
from collections.abc import Callable, Mapping

import numpy as np

from langsteer.errors import UserError
from langsteer.policies.agent import Agent
from langsteer.serving.frames import read_frame
from langsteer.serving.messages import ACTIONS, HISTORY, PROMPT, RESET, SEED, Offer
from langsteer.serving.wire import MAX_MESSAGE_BYTES, BadMessageError, pack, unpack

# isort: split
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

log = logging.getLogger(__name__)
_MAX_REASON = 120  # bytes for the reason in a close frame
_PING_SECONDS = 300  # a client answers late while it compiles or draws
_MAX_SEED = 2**63


class AgentServer:
    """Answers requests with an agent's actions.

    Args:
        make_agent: makes an agent with no memory, one for each connection; they share weights.
        policy: its description in plain values, for a client's results.
    """

    def __init__(
        self, make_agent: Callable[[], Agent], policy: Mapping[str, object] | None = None
    ) -> None:
        self._make_agent = make_agent
        self._offer = offer_of(make_agent(), policy)
        # One prediction at a time: two at once would be slower than one after the other.
        self._lock = threading.Lock()

    def listen(self, host: str, port: int) -> Server:
        """A server on its port; ``serve_forever`` answers, ``shutdown`` ends it.

        Raises:
            UserError: the port is taken, or the address is not this machine's.
        """
        try:
            return serve(
                self._answer_all,
                host,
                port,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                process_request=_health_check,
                ping_timeout=_PING_SECONDS,
            )
        except (OSError, OverflowError) as error:
            raise UserError(
                f"{host}:{port}: cannot listen there ({error}); is another server running? Choose "
                "another port"
            ) from error

    def _answer_all(self, connection: ServerConnection) -> None:
        # A memory for each connection: evaluations that share the server do not mix frames.
        session = _Session(self._make_agent())
        try:
            connection.send(pack(self._offer.to_metadata()))
            for data in connection:
                self._answer(connection, session, data)
        except ConnectionClosed:
            log.info("connection from %s closed", connection.remote_address)

    def _answer(self, connection: ServerConnection, session: "_Session", data: str | bytes) -> None:
        try:
            if isinstance(data, str):
                raise BadMessageError("text; requests are msgpack")
            with self._lock:
                answer = session.actions(unpack(data))
        except (UserError, BadMessageError) as error:
            # As openpi's server does: the error as text, then the end of the connection.
            connection.send(f"{type(error).__name__}: {error}")
            reason = str(error).encode()[:_MAX_REASON].decode(errors="ignore")
            connection.close(CloseCode.INVALID_DATA, reason)
            return
        connection.send(pack({ACTIONS: answer}))


class _Session:
    """One connection's memory."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._prompt: str | None = None

    def actions(self, request: Mapping[str, object]) -> np.ndarray:
        """(K, 7) float32 for one request."""
        prompt, seed = request.get(PROMPT), request.get(SEED, 0)
        if not isinstance(prompt, str | None):
            raise UserError(f"{PROMPT} {prompt!r}: expected words")
        if not isinstance(seed, int | np.integer) or not 0 <= seed < _MAX_SEED:
            raise UserError(f"{SEED} {seed!r}: expected a whole number from 0 on, below 2**63")
        # Clients of openpi know no reset; with them, other words are another task.
        if request.get(RESET, False) or prompt != self._prompt or self._prompt is None:
            self._agent.reset(int(seed))
            self._agent.instruct(prompt or None)
            self._prompt = prompt or ""
        history = request.get(HISTORY, [])
        if not isinstance(history, list):
            raise UserError(f"{HISTORY}: a list of earlier observations was expected")
        frames = [read_frame(frame, self._agent) for frame in [*history, request]]
        # The policy needs the frames it was not asked about: they come along as history.
        for frame in frames[:-1]:
            self._agent.observe(frame)
        return self._agent.act(frames[-1])


def offer_of(agent: Agent, policy: Mapping[str, object] | None = None) -> Offer:
    """A server's description of an agent."""
    return Offer(
        ("cloud",),
        "relative",
        agent.n_obs_steps,
        agent.sees_colours,
        agent.pipeline,
        policy,
        agent.reads_sentences,
    )


def _health_check(connection: ServerConnection, request: Request) -> Response | None:
    """``/healthz`` says OK, as openpi's server does; everything else is the protocol."""
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "OK\n")
    return None
