"""A film from the static camera, one frame for each control step.

Example::

    with filming(Path("outputs/replay.mp4")) as video:
        video.add(env)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langsteer.envs.calvin_env import CalvinEnv
from langsteer.envs.mp4 import Mp4Writer
from langsteer.experts.motion import CONTROL_RATE

_ENLARGED = 2


class Video:
    """An MP4 file to append frames to."""

    def __init__(self, writer: Mp4Writer) -> None:
        self._writer = writer

    def add(self, env: CalvinEnv) -> None:
        """Append what the static camera sees now."""
        image: NDArray[np.uint8] = env.render_camera("static")[0]
        enlarged = image.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
        self._writer.add(enlarged)


@contextmanager
def filming(path: Path | None) -> Iterator[Video | None]:
    """A film at ``path`` once the block ends well; None without a path."""
    if path is None:
        yield None
        return
    with Mp4Writer(path, CONTROL_RATE) as writer:
        yield Video(writer)
