"""The messages between an evaluation and a policy's server. docs/serving.md has the table.

A request is one observation, under the keys of openpi's examples if they have one. The answer has
``actions`` (K, 7), to execute one after the other before the next request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError

STATE, PROMPT = "observation/state", "prompt"
IMAGES = {"static": "observation/image", "gripper": "observation/wrist_image"}
DEPTHS = {"static": "observation/depth", "gripper": "observation/wrist_depth"}
CLOUD = "observation/point_cloud"
HISTORY, RESET, SEED = "history", "reset", "seed"
ACTIONS = "actions"

PARTS = ("rgb", "depth", "cloud")
SPACES = ("relative", "absolute")
ACTION_SIZE = 7
MOST_FRAMES = 64
_DEFAULT = ObservationPipeline()


@dataclass(frozen=True)
class Offer:
    """A server's description of its policy when a connection opens; all is optional.

    Attributes:
        observation: parts the policy sees besides state and prompt, e.g. ``("cloud",)``.
        actions: ``"relative"`` or ``"absolute"``.
        n_obs_steps: frames a prediction sees: the earlier ones travel as ``history``.
        coloured: whether points of a cloud are XYZRGB.
        pipeline: of its clouds, see `ObservationPipeline`.
        policy: its description in plain values, for results.
        reads_sentences: whether the prompt makes a difference.
    """

    observation: tuple[str, ...] = ("rgb",)
    actions: str = "relative"
    n_obs_steps: int = 1
    coloured: bool = False
    pipeline: ObservationPipeline = _DEFAULT
    policy: Mapping[str, Any] | None = None
    reads_sentences: bool = True

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Offer":
        """The offer in a server's first message; openpi's own servers leave all of it out.

        Raises:
            UserError: the message makes no sense.
        """
        observation = metadata.get("observation", cls.observation)
        pipeline = metadata.get("pipeline")
        try:
            offer = cls(
                tuple(observation) if isinstance(observation, list | tuple) else (observation,),
                metadata.get("actions", cls.actions),
                metadata.get("n_obs_steps", cls.n_obs_steps),
                bool(metadata.get("coloured", cls.coloured)),
                cls.pipeline if pipeline is None else ObservationPipeline.from_dict(pipeline),
                metadata.get("policy"),
                bool(metadata.get("reads_sentences", cls.reads_sentences)),
            )
            sensible = set(offer.observation) <= set(PARTS) and offer.actions in SPACES
        except (TypeError, AttributeError, KeyError) as error:
            raise UserError(f"the server's metadata {dict(metadata)} are damaged") from error
        frames = offer.n_obs_steps
        if not sensible or type(frames) is not int or not 1 <= frames <= MOST_FRAMES:
            raise UserError(
                f"the server's metadata {dict(metadata)}: expected observation of "
                f"{', '.join(PARTS)}, actions {' or '.join(SPACES)}, n_obs_steps from 1 to "
                f"{MOST_FRAMES}"
            )
        return offer

    def to_metadata(self) -> dict[str, Any]:
        """Plain values for the first message of a connection."""
        return {
            "observation": list(self.observation),
            "actions": self.actions,
            "n_obs_steps": self.n_obs_steps,
            "coloured": self.coloured,
            "pipeline": self.pipeline.to_dict(),
            "policy": self.policy,
            "reads_sentences": self.reads_sentences,
        }


def checked_actions(answer: Mapping[str, Any]) -> NDArray[np.float64]:
    """The actions (K, 7) float64 of an answer; a single one may come as (7,).

    Raises:
        ValueError: there are none, of another shape, or not finite.
    """
    if ACTIONS not in answer:
        raise ValueError(f"no key {ACTIONS!r}, only {sorted(map(str, answer))}")
    try:
        actions = np.array(answer[ACTIONS], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{ACTIONS} that are no numbers ({error})") from error
    actions = actions[None] if actions.ndim == 1 else actions
    if actions.ndim != 2 or actions.shape[1] != ACTION_SIZE or len(actions) == 0:
        raise ValueError(f"{ACTIONS} of shape {actions.shape}, expected (K, {ACTION_SIZE})")
    if not np.isfinite(actions).all():
        row = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
        raise ValueError(f"{ACTIONS}[{row}] = {actions[row].tolist()}: not all finite")
    return actions
