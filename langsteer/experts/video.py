"""A film of what the static camera sees, one frame for each control step.

Example::

    video = Video(Path("outputs/replay.mp4"))
    video.add(env)
    video.close()
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langsteer.envs.calvin_env import CalvinEnv
from langsteer.envs.video import Mp4Writer
from langsteer.experts.motion import CONTROL_RATE

_ENLARGED = 2


class Video:
    """An MP4 file that frames are appended to."""

    def __init__(self, path: Path) -> None:
        self._writer = Mp4Writer(path, CONTROL_RATE)

    def add(self, env: CalvinEnv) -> None:
        """Append what the static camera sees now."""
        image: NDArray[np.uint8] = env.render_camera("static")[0]
        enlarged = image.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
        self._writer.add(enlarged)

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()
