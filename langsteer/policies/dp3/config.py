"""The choices that make a DP3 policy; a checkpoint remembers them.

Example::

    config = DP3Config(down_dims=(128, 256, 384), blocks_per_stage=1)  # Simple DP3
    assert DP3Config.from_dict(config.to_dict()) == config

The defaults are DP3's published recipe (Ze et al. 2024, "3D Diffusion Policy", and its released
configuration), except that angles of the robot's state are made continuous (`normalizer`).
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from langsteer.errors import UserError
from langsteer.sentences import ENCODERS

AGENT_POS_FEATURES = ("full", "tcp")
PREDICTIONS = ("sample", "v", "preconditioned")


@dataclasses.dataclass(frozen=True)
class DP3Config:
    """Shape and arithmetic of a `DP3` policy.

    Attributes:
        horizon: length of a predicted action trajectory in steps; each down stage halves it.
        n_obs_steps: observation frames that condition it; the last of them is the present.
        n_action_steps: actions executed from it, from the present one on.
        action_dim: CALVIN's ``rel_actions`` have 7.
        agent_pos: what the network sees of ``robot_obs``: ``full`` all 15 values, as the reference
            does; ``tcp`` the tcp's position, sine and cosine of its angles, the gripper's width.
        use_pc_color: points are XYZRGB and not XYZ.
        point_widths: widths of the per-point layers.
        encoder_output_dim: features of the cloud, and of the state, per observation frame.
        down_dims: channels of the U-Net's stages.
        blocks_per_stage: residual blocks per stage: 2 in DP3, 1 in Simple DP3.
        kernel_size: taps of the U-Net's convolutions, odd.
        n_groups: groups of its group normalisations.
        diffusion_step_embed_dim: width of the timestep's embedding.
        num_train_timesteps: steps of the diffusion process.
        num_inference_steps: denoising steps of a prediction; they divide the process evenly.
        prediction: what the network's output stands for (`ddim.Diffusion`): ``sample`` the clean
            trajectory, as the reference; ``v``; ``preconditioned``.
        sigma_data: standard deviation of normalised actions, for ``preconditioned``.
        noise_draws: noised trajectories trained per encoded observation.
        language: condition the policy on a sentence, too.
        language_encoder: what embeds sentences, of `langsteer.sentences.ENCODERS`.
        language_dim: width of the sentence's embedding; 384 for both encoders.
        language_dropout: share of training samples whose sentence is withheld.
        language_guidance: classifier-free guidance scale of sampling; 1 is plain conditioning.
    """

    horizon: int = 16
    n_obs_steps: int = 2
    n_action_steps: int = 8
    action_dim: int = 7
    agent_pos: str = "full"
    use_pc_color: bool = False
    point_widths: tuple[int, ...] = (64, 128, 256)
    encoder_output_dim: int = 64
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    blocks_per_stage: int = 2
    kernel_size: int = 5
    n_groups: int = 8
    diffusion_step_embed_dim: int = 128
    num_train_timesteps: int = 100
    num_inference_steps: int = 10
    prediction: str = "sample"
    sigma_data: float = 0.4
    noise_draws: int = 1
    language: bool = False
    language_encoder: str = "minilm"
    language_dim: int = 384
    language_dropout: float = 0.1
    language_guidance: float = 1.0

    def __post_init__(self) -> None:
        # YAML and JSON know lists only.
        for name in ("down_dims", "point_widths"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_types()
        self._check_shape()
        self._require(self.agent_pos in AGENT_POS_FEATURES, "agent_pos", AGENT_POS_FEATURES)
        self._require(self.prediction in PREDICTIONS, "prediction", PREDICTIONS)
        self._require(
            self.num_inference_steps <= self.num_train_timesteps,
            "num_inference_steps",
            f"at most num_train_timesteps={self.num_train_timesteps}",
        )
        self._require(self.sigma_data > 0, "sigma_data", "a number above 0")
        self._require(self.language_encoder in ENCODERS, "language_encoder", ENCODERS)
        self._require(0 <= self.language_dropout < 1, "language_dropout", "a share below 1")

    def _check_types(self) -> None:
        for name, kind in _FIELD_TYPES.items():
            is_such, expected = _TYPES[kind]
            self._require(is_such(getattr(self, name)), name, expected)

    def _check_shape(self) -> None:
        """Whether the U-Net can be built."""
        self._require(len(self.down_dims) >= 2, "down_dims", "two stages or more")
        self._require(
            all(width % self.n_groups == 0 for width in self.down_dims),
            "down_dims",
            f"multiples of n_groups={self.n_groups}",
        )
        halvings = 2 ** (len(self.down_dims) - 1)
        self._require(self.horizon % halvings == 0, "horizon", f"a multiple of {halvings}")
        last = self.n_obs_steps - 1 + self.n_action_steps
        self._require(last <= self.horizon, "n_action_steps", "actions inside the horizon")
        self._require(self.kernel_size % 2 == 1, "kernel_size", "an odd number")
        self._require(
            self.diffusion_step_embed_dim >= 4 and self.diffusion_step_embed_dim % 2 == 0,
            "diffusion_step_embed_dim",
            "an even number from 4 on",
        )

    def _require(self, holds: bool, name: str, expected: object) -> None:
        if not holds:
            raise UserError(f"policy.{name}={getattr(self, name)!r}: expected {expected}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DP3Config":
        """The config of plain values; an unknown key raises `UserError` with the nearest known."""
        for key in values:
            if key not in _FIELD_TYPES:
                near = difflib.get_close_matches(key, _FIELD_TYPES, n=1)
                hint = f"; did you mean policy.{near[0]}?" if near else ""
                raise UserError(f"policy.{key}: unknown key{hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values (lists, not tuples) for YAML, JSON and checkpoints."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value
                for key, value in values.items()}  # fmt: skip

    @property
    def point_dim(self) -> int:
        """Values per point: 3 for XYZ, 6 for XYZRGB."""
        return 6 if self.use_pc_color else 3


_FIELD_TYPES = {field.name: field.type for field in dataclasses.fields(DP3Config)}


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


_TYPES: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is_count, "a whole number from 1 on"),
    float: (lambda value: type(value) in (int, float) and math.isfinite(value), "a number"),
    bool: (lambda value: type(value) is bool, "true or false"),
    str: (lambda value: isinstance(value, str), "a word"),
    tuple[int, ...]: (
        lambda value: isinstance(value, tuple) and len(value) > 0 and all(map(_is_count, value)),
        "a list of whole numbers from 1 on",
    ),
}
"""Of each type of field: what is one, and how a message says that."""
