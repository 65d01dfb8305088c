"""Several environments at once, each in a worker process of its own.

Example::

    with VectorEnv(4, scene="builtin") as envs:
        envs.reset(seeds=range(4))
        envs.step(np.zeros((4, 7)))
        clouds = envs.call("observe", point_cloud=True)   # a list of 4

Workers are spawned, not forked, so that they share nothing with this process; scripts therefore
need ``if __name__ == "__main__":``. A worker ends when its pipe closes, even if this process is
killed, so none is left behind. One that dies is an error that says so, and stops the others.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from langsteer.errors import UserError

SECONDS_TO_END = 5.0


class WorkerError(RuntimeError):
    """A worker process died, or met an error that is no fault of the input."""


class VectorEnv:
    """``n_envs`` environments of the same kind; results come in the order of the environments.

    Args:
        n_envs: how many, one process each.
        env_arguments: those of `langsteer.envs.calvin_env.CalvinEnv`.

    Raises:
        UserError: no environment is asked for, or the arguments are wrong.
        WorkerError: a worker died.
    """

    def __init__(self, n_envs: int, **env_arguments: Any) -> None:  # noqa: ANN401
        if n_envs < 1:
            raise UserError(f"{n_envs} environments: at least one is needed")
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._workers: list[Any] = []
        try:
            for index in range(n_envs):
                ours, theirs = context.Pipe()
                self._pipes.append(ours)
                worker = context.Process(
                    target=_serve,
                    args=(theirs, env_arguments),
                    name=f"langsteer-env-{index}",
                    daemon=True,
                )
                worker.start()
                theirs.close()  # so that the pipe closes when the worker dies
                self._workers.append(worker)
            self._receive_all()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._workers)

    def reset(
        self,
        seeds: Iterable[int | None] | None = None,
        options: Sequence[Mapping[str, ArrayLike] | None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Reset all, each with its seed and options (see `CalvinEnv.reset`).

        Returns:
            ``robot_obs`` (N, 15) and ``scene_obs`` (N, 24), float64.
        """
        seeds = [None] * len(self) if seeds is None else list(seeds)
        options = [None] * len(self) if options is None else options
        arguments = [
            {"seed": seed, "options": option} for seed, option in zip(seeds, options, strict=True)
        ]
        return _stacked([result[0] for result in self.call_each("reset", arguments)])

    def step(self, actions: ArrayLike) -> dict[str, np.ndarray]:
        """One control step of all with ``actions`` (N, 7); returns what `reset` does."""
        rows = [{"action": action} for action in np.asarray(actions)]
        return _stacked([result[0] for result in self.call_each("step", rows)])

    def call(self, method: str, **arguments: Any) -> list[Any]:  # noqa: ANN401
        """Call a method of every environment with the same arguments; their N results."""
        return self.call_each(method, [arguments] * len(self))

    def call_each(self, method: str, arguments: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Call a method of every environment, each with its own named arguments.

        Raises:
            UserError: there are not N sets of arguments, or an environment refused its own.
            WorkerError: a worker died; all are stopped.
        """
        if not self._workers:
            raise UserError("this vector of environments is closed; make another one")
        if len(arguments) != len(self):
            raise UserError(f"{method}: {len(arguments)} entries for {len(self)} environments")
        for index, entries in enumerate(arguments):
            try:
                self._pipes[index].send((method, dict(entries)))
            except OSError as error:
                raise self._death(index) from error
        return self._receive_all()

    def _receive_all(self) -> list[Any]:
        """Every worker's answer, those that are errors last: none stays in its pipe."""
        answers = []
        for index, pipe in enumerate(self._pipes):
            try:
                answers.append(pipe.recv())
            except (EOFError, OSError) as error:
                raise self._death(index) from error
        for index, (kind, value) in enumerate(answers):
            if kind == "refused":
                raise UserError(f"environment {index}: {value}")
            if kind == "failed":
                self.close()
                raise WorkerError(f"environment {index} failed in its worker process:\n{value}")
        return [value for _, value in answers]

    def _death(self, index: int) -> WorkerError:
        worker = self._workers[index]
        worker.join(SECONDS_TO_END)
        code = worker.exitcode
        self.close()
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return WorkerError(
            f"the worker process of environment {index} died ({how}); often memory ran out: use "
            "fewer environments, or start again"
        )

    def close(self) -> None:
        """End all workers; a second call does nothing."""
        for pipe in self._pipes:
            pipe.close()
        for worker in self._workers:
            worker.join(SECONDS_TO_END)
            if worker.is_alive():
                worker.kill()
                worker.join()
        self._pipes, self._workers = [], []

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stacked(observations: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([each[key] for each in observations]) for key in observations[0]}


def _serve(pipe: Connection, env_arguments: dict[str, Any]) -> None:
    """A worker's life: make an environment, answer calls until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    env = None
    try:
        try:
            from langsteer.envs.calvin_env import CalvinEnv

            env = CalvinEnv(**env_arguments)
            pipe.send(("done", None))
        except UserError as error:
            pipe.send(("refused", str(error)))
            return
        while True:
            method, arguments = pipe.recv()
            pipe.send(_answer(env, method, arguments))
    except (EOFError, OSError):
        pass  # the parent closed the pipe or died
    except Exception:
        pipe.send(("failed", traceback.format_exc()))
    finally:
        if env is not None:
            env.close()


def _answer(env: Any, method: str, arguments: dict[str, Any]) -> tuple[str, Any]:  # noqa: ANN401
    try:
        return "done", getattr(env, method)(**arguments)
    except UserError as error:
        return "refused", str(error)
    except Exception:
        return "failed", traceback.format_exc()
