"""Scale observations and actions to [-1, 1], with continuous angles.

Example::

    normalizer = Normalizer.fit(DP3Config(), robot_obs, rel_actions)  # (N, 15), (N, 7)
    normalizer.action.unnormalize(normalizer.action.normalize(actions))

The sampler clips trajectories to [-1, 1]. So the scale comes from limits, not from mean and
deviation: executed actions never leave the range of the training data. Points stay in metres.

Angles. The roll of CALVIN's tcp lies near +pi and -pi and flips between them. So its limits are
those of the shortest arc around the training data, e.g. [2.9, 3.4]. Whole turns first
bring an incoming angle to within half a turn of the arc's middle. The values stay 15. An angle
inside the fitted limits stays as it is, as in the reference. An angle with added turns is the same
angle to the policy. Fitted limits more than a turn apart belong to an angle that counts turns; it
is taken as it is.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from langsteer.calvin.angles import wrapped
from langsteer.policies.dp3.config import DP3Config

RANGE_EPS = 1e-4  # the reference's: a dimension that moves less is only centred
ROBOT_OBS_DIM = 15
TCP_POSITION, TCP_ANGLES, GRIPPER_WIDTH = slice(0, 3), slice(3, 6), slice(6, 7)
JOINT_ANGLES = slice(7, 14)
TCP_FEATURES_DIM = 10


def agent_pos_dim(features: str) -> int:
    """Number of values the network sees of ``robot_obs``, for a choice of features."""
    return ROBOT_OBS_DIM if features == "full" else TCP_FEATURES_DIM


def agent_pos_features(features: str, robot_obs: Tensor) -> Tensor:
    """The network's part of ``robot_obs`` (..., 15): all of it, or (..., 10) of the tcp.

    ``tcp`` is position (metres), sine and cosine of the three angles, gripper width (metres). It
    leaves out the joints and the last command: a policy likes to copy these instead of looking.
    """
    if features == "full":
        return robot_obs
    angles = robot_obs[..., TCP_ANGLES]
    parts = [
        robot_obs[..., TCP_POSITION],
        angles.sin(),
        angles.cos(),
        robot_obs[..., GRIPPER_WIDTH],
    ]
    return torch.cat(parts, dim=-1)


def angle_dims(features: str) -> list[int]:
    """Indices of the features that are angles in radians."""
    if features == "full":
        return [*range(ROBOT_OBS_DIM)[TCP_ANGLES], *range(ROBOT_OBS_DIM)[JOINT_ANGLES]]
    return []


class LinearNormalizer(nn.Module):
    """``x * scale + offset`` per value of the last dimension, fitted to map limits to [-1, 1]."""

    scale: Tensor
    offset: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        # NaN until fitted: a normaliser lost on the way cannot move a robot at random.
        self.register_buffer("scale", torch.full((dim,), math.nan))
        self.register_buffer("offset", torch.full((dim,), math.nan))

    def set_limits(self, low: Tensor, high: Tensor) -> None:
        """Map ``low`` (D,) to -1 and ``high`` (D,) to 1; equal limits map to 0."""
        constant = high - low < RANGE_EPS
        span = torch.where(constant, torch.full_like(low, 2.0), high - low)
        self.scale.copy_(2.0 / span)
        self.offset.copy_(-(low + high) / 2 * (2.0 / span))

    def set_identity(self) -> None:
        """Leave values as they are."""
        self.scale.fill_(1.0)
        self.offset.zero_()

    def normalize(self, values: Tensor) -> Tensor:
        """(..., D) in raw units to (..., D) within [-1, 1] inside the limits."""
        return values * self.scale + self.offset

    def unnormalize(self, values: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return (values - self.offset) / self.scale


class Normalizer(nn.Module):
    """The policy's three normalisers; fitted on training data only, and part of its state dict."""

    angles: Tensor

    def __init__(self, config: DP3Config) -> None:
        super().__init__()
        self.features = config.agent_pos
        self.point_cloud = LinearNormalizer(config.point_dim)
        self.agent_pos = LinearNormalizer(agent_pos_dim(self.features))
        self.action = LinearNormalizer(config.action_dim)
        is_angle = torch.zeros(agent_pos_dim(self.features), dtype=torch.bool, device="cpu")
        is_angle[angle_dims(self.features)] = True
        self.register_buffer("angles", is_angle, persistent=False)
        self._was_fitted = False

    @classmethod
    def fit(cls, config: DP3Config, robot_obs: np.ndarray, actions: np.ndarray) -> "Normalizer":
        """Take the limits of training data.

        Args:
            config: the policy's.
            robot_obs: (N, 15) as stored.
            actions: (N, 7) ``rel_actions``.
        """
        normalizer = cls(config)
        normalizer.point_cloud.set_identity()
        normalizer.action.set_limits(*_limits(torch.from_numpy(np.array(actions, np.float64))))
        features = agent_pos_features(
            config.agent_pos, torch.from_numpy(np.array(robot_obs, float))
        )
        low, high = _limits(features)
        if config.agent_pos == "full":
            for dim in range(ROBOT_OBS_DIM)[TCP_ANGLES]:
                low[dim], high[dim] = shortest_arc(features[:, dim].numpy())
        normalizer.agent_pos.set_limits(low, high)
        return normalizer

    @property
    def fitted(self) -> bool:
        """Whether limits were fitted or loaded.

        Asks the device until they are: each look waits for it.
        """
        if not self._was_fitted:
            self._was_fitted = bool(self.action.scale.isfinite().all())
        return self._was_fitted

    def normalize_agent_pos(self, robot_obs: Tensor) -> Tensor:
        """(..., 15) as stored to the network's (..., D) features; added turns change nothing."""
        values = self.agent_pos.normalize(agent_pos_features(self.features, robot_obs))
        if self.features != "full":
            return values
        turn = 2 * math.pi * self.agent_pos.scale  # in normalised units; the limits are 2 apart
        bounded = self.angles & (turn >= 2)
        return torch.where(bounded, values - turn * torch.round(values / turn), values)


def _limits(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.amin(dim=0), values.amax(dim=0)


def shortest_arc(angles: np.ndarray) -> tuple[float, float]:
    """The shortest arc around ``angles`` (N,), radians: (low, high), low in [-pi, pi).

    Its ends are the two sides of the largest gap on the circle.
    """
    on_circle = np.unique(wrapped(np.asarray(angles, np.float64)))
    gaps = np.diff(on_circle, append=on_circle[0] + 2 * math.pi)
    after = int(np.argmax(gaps))
    if after == len(on_circle) - 1:
        return float(on_circle[0]), float(on_circle[-1])
    return float(on_circle[after + 1]), float(on_circle[after]) + 2 * math.pi
