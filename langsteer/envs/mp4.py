"""Write MP4 files for browsers, with the ffmpeg of imageio-ffmpeg.

Example::

    with Mp4Writer(Path("outputs/episode.mp4"), frames_per_second=30) as writer:
        writer.add(frame)      # (H, W, 3) uint8, H and W even
"""

from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from imageio_ffmpeg import write_frames
from numpy.typing import NDArray

from langsteer.files import replacing


class Mp4Writer:
    """An H.264 file; it appears when the block ends well. Add one frame at least.

    Args:
        path: of the file; parent folders are made.
        frames_per_second: of the film.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self.frames_per_second = frames_per_second
        self._files = ExitStack()
        self._temporary = self._files.enter_context(replacing(path))
        self._writer: Generator[None, NDArray[np.uint8] | None, None] | None = None

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame (H, W, 3) uint8; all must be of the first one's size."""
        if self._writer is None:
            height, width, _ = frame.shape
            self._writer = write_frames(
                str(self._temporary),
                (width, height),
                fps=self.frames_per_second,
                macro_block_size=8,
                quality=6,
                ffmpeg_log_level="error",
                output_params=["-f", "mp4", "-movflags", "+faststart"],
            )
            self._writer.send(None)
        self._writer.send(np.ascontiguousarray(frame))

    def __enter__(self) -> "Mp4Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file; after an error there is none."""
        if self._writer is not None:
            self._writer.close()
        self._files.__exit__(kind, error, trace)
