"""What a conversion takes from a CALVIN dataset, and how.

Example::

    settings = ConversionSettings(tasks=("open_drawer",), n_points=1024)
    settings.arrays    # what it writes for each frame
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from langsteer.data.pointcloud import CAMERAS, WORKSPACE, Box
from langsteer.data.store import ARRAYS
from langsteer.data.windows import EPISODE_KINDS
from langsteer.errors import UserError
from langsteer.settings import Count, Settings, one_of


@dataclass(frozen=True)
class ConversionSettings(Settings):
    """See ``docs/zarr_format.md``.

    Attributes:
        episodes: "language" for the annotated windows, "play" for whole recordings, "labelled" for
            whole recordings, with task and sentence if they show one task alone.
        splits: of "training" and "validation"; None takes those present.
        tasks: only windows of these tasks; None takes all.
        max_episodes: at most this many, in the store's order; None takes all.
        skip: arrays to leave out, of "img" and "depth".
        n_points: points of a cloud.
        box: workspace, see `ObservationPipeline`.
        cameras: cameras of the cloud.
        static_crop: side of the central part of the static image, pixels.
        frames_per_shard: frames in one file of an array; None chooses by the number of frames.
    """

    episodes: Annotated[str, one_of(*EPISODE_KINDS)] = "language"
    splits: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    max_episodes: Count | None = None
    skip: tuple[Literal["img", "depth"], ...] = ()
    n_points: int = 2048
    box: Box = WORKSPACE
    cameras: tuple[str, ...] = CAMERAS
    static_crop: int = 160
    frames_per_shard: Count | None = None

    def check(self) -> None:
        """Raise `UserError` for settings that make no sense."""
        if self.tasks is not None and self.episodes == "play":
            raise UserError("play episodes have no tasks: leave --tasks away or convert language")

    @property
    def arrays(self) -> tuple[str, ...]:
        """The arrays to write."""
        return tuple(name for name in ARRAYS if name not in self.skip)
