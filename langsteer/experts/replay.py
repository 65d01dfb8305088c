"""Do recorded actions, in the simulator, do their tasks?

Each annotated window is replayed on its own. The simulator starts in the state of the window's
first frame and executes the recorded relative actions, as a policy's. The task oracle watches.

Example::

    langsteer-replay data/demos --splits validation --video outputs/replay.mp4
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langsteer.calvin.dataset import (
    Annotation,
    Split,
    read_frame,
)
from langsteer.calvin.scenes import scene_of
from langsteer.calvin.tasks import achieved
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.experts.filming import Video
from langsteer.progress import track

_VECTORS = ("robot_obs", "scene_obs", "rel_actions")


@dataclass(frozen=True)
class Replay:
    """The outcome of one window.

    Attributes:
        split: its name.
        annotation: the window.
        done_after: control steps after which the oracle first saw the task done; None for never.
        held: whether it is still done after the last action.
        tcp_error: metres between the replayed and the recorded tcp, at most, over the window.
    """

    split: str
    annotation: Annotation
    done_after: int | None
    held: bool
    tcp_error: float


def replay(
    split: Split, annotation: Annotation, env: CalvinEnv, video: Video | None = None
) -> Replay:
    """Replay one window in an environment of its scene.

    Raises:
        BadFrameError: a frame of the window is missing or damaged.
    """
    frames = [
        read_frame(split.frame_path(number), _VECTORS, split.config)
        for number in range(annotation.start, annotation.end)
    ]
    env.reset(options={key: frames[0][key] for key in ("robot_obs", "scene_obs")})
    start = env.info()
    done_after, error = None, 0.0
    for step, frame in enumerate(frames):
        error = max(error, float(np.linalg.norm(env.robot_obs[:3] - frame["robot_obs"][:3])))
        env.step(frame["rel_actions"])
        if video is not None:
            video.add(env)
        if done_after is None and achieved(start, env.info(), annotation.task):
            done_after = step + 1
    held = achieved(start, env.info(), annotation.task)
    return Replay(split.name, annotation, done_after, held, error)


def replay_all(
    chosen: Sequence[tuple[Split, Annotation]],
    scene: str | None,
    assets_path: Path | None,
    video: Video | None,
) -> list[Replay]:
    """Replay windows, each in its own scene unless one is given."""
    environments: dict[str, CalvinEnv] = {}
    results = []
    for split, annotation in track(chosen, "replaying", "window"):
        name = scene or scene_of(split, annotation.start)
        if name not in environments:
            environments[name] = CalvinEnv(name, assets_path, "tiny")
        results.append(replay(split, annotation, environments[name], video))
    return results


def table(results: Sequence[Replay]) -> list[str]:
    """The results as lines of text: each window, then how many were done."""
    lines = [f"{'window':<28}{'task':<28}{'done after':>11}{'at end':>8}{'tcp error':>11}"]
    for result in results:
        note = result.annotation
        done = "never" if result.done_after is None else f"{result.done_after} steps"
        lines.append(
            f"{f'{result.split} {note.start}-{note.end}':<28}{note.task:<28}{done:>11}"
            f"{'yes' if result.held else 'no':>8}{result.tcp_error * 1000:>8.1f} mm"
        )
    total = Counter(result.done_after is not None for result in results)
    lines.append(f"the oracle saw {total[True]} of {len(results)} annotated tasks done")
    return lines
