"""Sources of a LeRobot dataset's frames: a CALVIN folder or zip, or a store.

Example::

    source = CalvinSource(make_plan(Path("task_D_D"), ConversionSettings()), clouds=True)
    source.frame(0)["observation.images.static"]    # of the first frame of the first episode
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.dataset import VECTORS, read_frame
from langsteer.calvin.dataset_writer import merged_config
from langsteer.calvin.scenes import scene_of
from langsteer.data import lerobot_format as lerobot
from langsteer.data.episodes import EpisodeTable
from langsteer.data.plan import ConversionPlan
from langsteer.data.shard_writer import convert_frame
from langsteer.data.store import Store, open_store

Frame = dict[str, NDArray[Any]]


class Source(Protocol):
    """Episodes of frames."""

    @property
    def table(self) -> EpisodeTable:
        """The table of the K episodes."""

    @property
    def episode_ends(self) -> NDArray[np.int64]:
        """(K,) int64, one past the last frame of each episode."""

    @property
    def features(self) -> dict[str, lerobot.Feature]:
        """LeRobot's description of a frame's values."""

    @property
    def cameras(self) -> dict[str, Any] | None:
        """CALVIN's configuration of them; None if frames cannot become a folder again."""

    def frame(self, row: int) -> Frame:
        """The values of a frame, by the names of ``features``.

        Raises:
            BadFrameError: it cannot be read.
        """


@dataclass(frozen=True)
class CalvinSource:
    """Frames of a CALVIN folder: colours, depth, state, scene, relative action.

    Attributes:
        plan: of the episodes.
        clouds: whether each frame has a point cloud, too.
    """

    plan: ConversionPlan
    clouds: bool = False

    @property
    def table(self) -> EpisodeTable:
        """See `Source`."""
        return self.plan.table

    @property
    def episode_ends(self) -> NDArray[np.int64]:
        """See `Source`."""
        return self.plan.episode_ends

    @cached_property
    def features(self) -> dict[str, lerobot.Feature]:
        """See `Source`."""
        pipeline = self.plan.pipeline
        sizes = {
            "static": (pipeline.static.height, pipeline.static.width),
            "gripper": (pipeline.gripper.height, pipeline.gripper.width),
        }
        found = {lerobot.IMAGES[name]: lerobot.image(*size) for name, size in sizes.items()}
        found |= {lerobot.DEPTHS[name]: lerobot.depth(*size) for name, size in sizes.items()}
        found |= {
            lerobot.STATE: lerobot.vector(VECTORS["robot_obs"]),
            lerobot.SCENE: lerobot.vector(VECTORS["scene_obs"]),
            lerobot.ACTION: lerobot.vector(VECTORS["rel_actions"]),
        }
        if self.clouds:
            found[lerobot.CLOUD] = lerobot.cloud(pipeline.n_points)
        return found

    @cached_property
    def cameras(self) -> dict[str, Any]:
        """See `Source`."""
        first = self.plan.source_of(0)
        config = first.split.config
        scene = f"calvin_scene_{scene_of(first.split, first.number)}"
        return merged_config(config.renderer, scene, config.static, config.gripper)

    def frame(self, row: int) -> Frame:
        """See `Source`."""
        source = self.plan.source_of(row)
        path, config = source.split.frame_path(source.number), source.split.config
        names = {
            **{f"rgb_{name}": key for name, key in lerobot.IMAGES.items()},
            **{f"depth_{name}": key for name, key in lerobot.DEPTHS.items()},
            "robot_obs": lerobot.STATE,
            "scene_obs": lerobot.SCENE,
            "rel_actions": lerobot.ACTION,
        }
        arrays = read_frame(path, names, config)
        found = {key: arrays[name] for name, key in names.items()}
        if self.clouds:
            converted = convert_frame(self.plan.pipeline, config, path, ())
            found[lerobot.CLOUD] = converted["point_cloud"][:, :3]
        return found


@dataclass(frozen=True)
class StoreSource:
    """Frames of a store: its image, depth and cloud if present, state and action.

    Attributes:
        path: of the store.
        clouds: whether each frame has its point cloud.
    """

    path: Path
    clouds: bool = False

    @cached_property
    def _store(self) -> Store:
        return open_store(self.path)

    @property
    def table(self) -> EpisodeTable:
        """See `Source`."""
        return self._store.episodes

    @property
    def episode_ends(self) -> NDArray[np.int64]:
        """See `Source`."""
        return self._store.episode_ends

    @property
    def cameras(self) -> None:
        """None: a store has no images of the gripper camera."""

    @cached_property
    def _names(self) -> dict[str, str]:
        """Array of the store to LeRobot's name."""
        names = {
            "img": lerobot.IMAGES["static"],
            "depth": lerobot.DEPTHS["static"],
            "state": lerobot.STATE,
            "action": lerobot.ACTION,
        }
        if self.clouds:
            names["point_cloud"] = lerobot.CLOUD
        return {name: key for name, key in names.items() if name in self._store.array_names}

    @cached_property
    def features(self) -> dict[str, lerobot.Feature]:
        """See `Source`."""
        side = self._store.pipeline.static_crop
        kinds = {
            "img": lerobot.image(side, side),
            "depth": lerobot.depth(side, side),
            "state": lerobot.vector(VECTORS["robot_obs"]),
            "action": lerobot.vector(VECTORS["rel_actions"]),
            "point_cloud": lerobot.cloud(self._store.n_points),
        }
        return {key: kinds[name] for name, key in self._names.items()}

    def frame(self, row: int) -> Frame:
        """See `Source`."""
        found = {
            key: np.asarray(self._store.array(name)[row].read().result())
            for name, key in self._names.items()
        }
        if self.clouds:
            found[lerobot.CLOUD] = found[lerobot.CLOUD][:, :3]
        return found
