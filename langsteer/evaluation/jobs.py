"""Independent pieces of work in processes that each make one environment and one agent.

A finished piece leaves a JSON file, written last and by rename; a run that was killed goes on with
the pieces that have none.

Example::

    run_jobs(Path("outputs/x/episodes"), range(10), play_episode, settings, num_workers=2,
             description="episodes", summarise=lambda results: "3 of 4")
"""

import hashlib
import json
import os
import signal
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from langsteer.configuration import require_whole
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.errors import UserError
from langsteer.files import replacing
from langsteer.nesting import flatten
from langsteer.policies.agent import Agent, load_agent
from langsteer.policies.loading import read_checkpoint
from langsteer.policies.precision import PRECISIONS, Precision
from langsteer.processes import worker_pool
from langsteer.progress import progress_bar

Settings = Mapping[str, Any]
Result = dict[str, Any]
SETTINGS = "settings.json"


class Stage:
    """What a process needs for all its pieces of work: the agent, the environment, the settings.

    Raises:
        UserError: a checkpoint whose clouds the environment cannot make.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.agent = make_agent(settings)
        self.env = open_env(settings["env"], self.agent)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def make_agent(settings: Settings) -> Agent:
    """The agent of ``policy.ckpt_path`` on ``device``."""
    policy = settings["policy"]
    return load_agent(
        policy["ckpt_path"],
        device_name(settings["device"]),
        policy["use_ema"],
        settings["precision"],
    )


def open_env(env: Mapping[str, Any], agent: Agent) -> CalvinEnv:
    """The environment of a configuration's ``env``, which makes the clouds that an agent sees.

    Raises:
        UserError: it cannot make them.
    """
    if agent.policy.config.use_pc_color and env["renderer"] == "depth":
        raise UserError(
            "this policy sees coloured points, and renderer 'depth' draws none; set "
            "env.renderer=egl (with a GPU) or env.renderer=tiny"
        )
    opened = CalvinEnv(
        scene=env["scene"],
        assets_path=env["assets_path"],
        renderer=env["renderer"],
        pipeline=agent.pipeline,
        led_reset=env["led_reset"],
    )
    agent.policy.check_pipeline(opened.pipeline)
    return opened


def precision_name(config: Settings) -> str:
    """The arithmetic that ``precision`` stands for on ``device``; results name it.

    Raises:
        UserError: there is no such device or precision.
    """
    wanted, device = config["precision"], device_name(config["device"])
    if wanted not in PRECISIONS:
        raise UserError(f"precision={wanted}: expected one of {', '.join(PRECISIONS)}")
    return Precision.choose(wanted, torch.device(device)).name


def device_name(wanted: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` is the GPU where there is one."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={wanted}: expected auto, cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: PyTorch finds no GPU here; use device=cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


Job = Callable[[Stage, int, Path], Result]
"""Do piece ``number`` and return its result in plain values; other files go into the folder."""

_stage: Stage | None = None


def run_jobs(
    folder: Path,
    numbers: Sequence[int],
    job: Job,
    settings: Settings,
    num_workers: int,
    description: str,
    summarise: Callable[[Sequence[Result]], str],
) -> list[Result]:
    """Do all pieces that are not done yet, and return all results in the order of ``numbers``.

    Raises:
        UserError: an input is wrong, or a worker process died.
    """
    require_whole({"num_workers": num_workers}, num_workers=1)
    folder.mkdir(parents=True, exist_ok=True)
    done = {
        number: result for number in numbers if (result := read_result(folder, number)) is not None
    }
    left = [number for number in numbers if number not in done]
    with progress_bar(len(numbers), description, description[:-1], initial=len(done)) as bar:

        def keep(number: int, result: Result) -> None:
            done[number] = result
            bar.set_postfix_str(summarise(list(done.values())), refresh=False)
            bar.update()

        if left and num_workers == 1:
            _in_this_process(folder, left, job, settings, keep)
        elif left:
            _in_processes(folder, left, job, settings, min(num_workers, len(left)), keep)
    return [done[number] for number in numbers]


Keep = Callable[[int, Result], None]
"""What is done with a result as soon as it is there."""


def _in_this_process(
    folder: Path, numbers: Sequence[int], job: Job, settings: Settings, keep: Keep
) -> None:
    with closing(Stage(settings)) as stage:
        for number in numbers:
            keep(number, _do(stage, job, number, folder))


def _in_processes(
    folder: Path,
    numbers: Sequence[int],
    job: Job,
    settings: Settings,
    num_workers: int,
    keep: Keep,
) -> None:
    Stage(settings).close()  # so that bad input is said once, and before processes are started
    with worker_pool(num_workers, _start_worker, (dict(settings),)) as pool:
        futures: dict[Future[Result], int] = {
            pool.submit(_work, job, number, folder): number for number in numbers
        }
        for future in as_completed(futures):
            keep(futures[future], future.result())


def _start_worker(settings: Settings) -> None:
    global _stage
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    torch.set_num_threads(1)  # processes that each use all cores slow each other down
    _stage = Stage(settings)


def _work(job: Job, number: int, folder: Path) -> Result:
    assert _stage is not None
    return _do(_stage, job, number, folder)


def _do(stage: Stage, job: Job, number: int, folder: Path) -> Result:
    result = job(stage, number, folder)
    write_result(folder, number, result)
    return result


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.json"


def write_result(folder: Path, number: int, result: Result) -> None:
    """Leave the result of a piece, which is done with that."""
    with replacing(_path(folder, number)) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")


def read_result(folder: Path, number: int) -> Result | None:
    """The result of a piece that is done, or None."""
    path = _path(folder, number)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def prepare_folder(folder: Path, settings: Settings) -> None:
    """Make a run's folder, or see that it holds a run of the same settings, which then goes on.

    Raises:
        UserError: it holds a run of other settings; they are listed.
    """
    path = folder / SETTINGS
    plain = json.loads(json.dumps(settings))
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(plain, indent=1), encoding="utf-8")
        return
    found, plain = flatten(json.loads(path.read_text(encoding="utf-8"))), flatten(plain)
    names = sorted(found.keys() | plain.keys())
    differing = [name for name in names if found.get(name) != plain.get(name)]
    if differing:
        lines = [f"  {name}: {found.get(name)} there, {plain.get(name)} now" for name in differing]
        raise UserError(
            f"{folder}: holds results of other settings:\n" + "\n".join(lines) + "\nchoose another "
            "output_dir, or remove that folder"
        )


def run_name(checkpoint: str | Path, settings: Settings, *what: str) -> str:
    """``<experiment>_<checkpoint>_<what>_<digest>``; the digest differs for other settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join([Path(checkpoint).parent.name, Path(checkpoint).stem, *what, digest])


def checkpoint_identity(path: str | Path | None) -> dict[str, Any]:
    """What tells a checkpoint from another that had the same name before: size and content's end.

    A checkpoint's end holds the checksums of all its tensors.

    Args:
        path: ``policy.ckpt_path``.

    Raises:
        UserError: None, or as `read_checkpoint`.
    """
    if path is None:
        raise UserError("no checkpoint: set policy.ckpt_path=outputs/checkpoints/.../latest.ckpt")
    path = Path(path)
    read_checkpoint(path, mmap=True)  # bad input is found before a folder is made for it
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, min(archive.start_dir, size - 65536)))
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    return {"path": str(path), "bytes": size, "sha256_of_end": digest}
