"""A film of what the static camera sees, one frame for each control step.

Example::

    video = Video(Path("outputs/replay.mp4"))
    video.add(env)
    video.close()
"""

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray

from langsteer.envs.calvin_env import CalvinEnv
from langsteer.experts.motion import CONTROL_RATE

_ENLARGED = 2


class Video:
    """An MP4 file that frames are appended to."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = imageio.get_writer(path, fps=CONTROL_RATE, macro_block_size=8)

    def add(self, env: CalvinEnv) -> None:
        """Append what the static camera sees now."""
        image: NDArray[np.uint8] = env.render_camera("static")[0]
        enlarged = image.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
        self._writer.append_data(enlarged)

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()
