"""A policy in another process, reached by openpi's protocol.

Example::

    policy = RemotePolicy("ws://127.0.0.1:8000")
    policy.infer({"observation/state": state, "prompt": "open the drawer"})["actions"]   # (K, 7)

Every failure is a `UserError` naming the server. An evaluation keeps its finished pieces, and the
same command goes on once the server answers again.
"""

import sys
import time
from typing import Any

from langsteer.errors import UserError
from langsteer.serving.wire import MAX_MESSAGE_BYTES, BadMessageError, pack, unpack

# isort: split
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

_RETRY_SECONDS = 0.5
GO_ON = "what is finished is kept, and the same command goes on"


class RemotePolicy:
    """One connection to a server.

    Args:
        url: ``ws://HOST:PORT`` or ``wss://...``.
        connect_seconds: how long to wait for a server.
        answer_seconds: how long an answer may take. A first one may compile a model.

    Attributes:
        url: the server's.
        metadata: the server's first message.

    Raises:
        UserError: no server, or one with another protocol.
    """

    def __init__(self, url: str, connect_seconds: float = 30, answer_seconds: float = 300) -> None:
        self.url, self._answer_seconds = url, answer_seconds
        self._connection = self._connect(connect_seconds)
        try:
            self.metadata = self._receive()
        except BaseException:
            self.close()
            raise

    def _connect(self, seconds: float) -> ClientConnection:
        deadline, waits = time.monotonic() + seconds, False
        while True:
            try:
                return connect(
                    self.url,
                    compression=None,
                    max_size=MAX_MESSAGE_BYTES,
                    open_timeout=max(1.0, seconds),
                    ping_interval=None,  # a server does not answer pings while it computes
                    proxy=None,
                )
            except InvalidURI as error:
                raise UserError(
                    f"policy.url={self.url}: expected ws://HOST:PORT, e.g. ws://127.0.0.1:8000"
                ) from error
            except (InvalidHandshake, TimeoutError, EOFError) as error:
                raise UserError(
                    f"{self.url}: what listens there speaks no websocket ({error}); start the "
                    f"policy's server on this port, e.g. langsteer-serve; {GO_ON}"
                ) from error
            except OSError as error:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{self.url}: no server answered within {seconds:g} s ({error}); start "
                        f"it, e.g. langsteer-serve policy.ckpt_path=...; {GO_ON}"
                    ) from error
                if not waits:
                    print(f"waiting up to {seconds:g} s for {self.url}", file=sys.stderr)
                waits = True
            time.sleep(_RETRY_SECONDS)

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to one observation.

        Raises:
            UserError: it is gone or too slow, or it answers with an error or with no message.
        """
        try:
            self._connection.send(pack(observation))
        except ConnectionClosed as error:
            raise self._gone(error) from error
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        try:
            answer = self._connection.recv(timeout=self._answer_seconds)
        except TimeoutError as error:
            raise UserError(
                f"{self.url}: no answer within {self._answer_seconds:g} s; give it longer with "
                f"policy.answer_seconds, or look at the server; {GO_ON}"
            ) from error
        except ConnectionClosed as error:
            raise self._gone(error) from error
        except WebSocketException as error:
            raise UserError(f"{self.url}: {error}") from error
        if isinstance(answer, str):  # openpi's servers send their traceback as text
            raise UserError(f"{self.url}: the server failed: {_last_line(answer)}; {GO_ON}")
        try:
            return unpack(answer)
        except BadMessageError as error:
            raise UserError(
                f"{self.url}: its answer is {error}; is it openpi's protocol?"
            ) from error

    def _gone(self, error: ConnectionClosed) -> UserError:
        return UserError(
            f"{self.url}: the server closed the connection ({error}); look at why it ended and "
            f"start it again; {GO_ON}"
        )

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._connection.close()

    def __enter__(self) -> "RemotePolicy":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it does not say why"
