"""The choices of a DP3 policy; a checkpoint remembers them.

Example::

    config = DP3Config(down_dims=(128, 256, 384), blocks_per_stage=1)  # Simple DP3
    assert DP3Config.from_dict(config.to_dict()) == config

The defaults are DP3's published recipe (Ze et al. 2024, "3D Diffusion Policy", and its released
configuration), except that angles of the robot's state are made continuous (`normalizer`).
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from langsteer.sentences import ENCODERS
from langsteer.settings import NonNegative, Portion, Positive, Settings, at_most, one_of

FRAMES_AHEAD = (16, 32, 48)
"""What the first heads look for, with ``foresight``: the hand's place so many frames later."""

# No network is wider, deeper or longer; what is beyond them would be built without end.
_Few = Annotated[int, at_most(16)]
_Length = Annotated[int, at_most(4096)]
_Width = Annotated[int, at_most(65_536)]

_FREE = ("foresight", "n_action_steps", "noise_draws", "language_dropout", "language_guidance")
"""Keys that change neither the weights' shapes nor what the output stands for."""


@dataclass(frozen=True)
class DP3Config(Settings, prefix="policy."):
    """Shape and arithmetic of a `DP3` policy.

    Attributes:
        horizon: length of a predicted action trajectory in steps; each down stage halves it.
        n_obs_steps: observation frames in the condition; the last one is the present.
        n_action_steps: actions of the trajectory to execute, from the present one on.
        action_dim: CALVIN's ``rel_actions`` have 7.
        agent_pos: the network's part of ``robot_obs``: ``full`` all 15 values, as in the reference;
            ``tcp`` the tcp's position, sine and cosine of its angles, the gripper's width.
        use_pc_color: points are XYZRGB and not XYZ.
        point_widths: widths of the per-point layers.
        attention_heads: heads of `encoder.PointAttention`, to look for the things of the sentence;
            0 leaves it out, as in the reference.
        foresight: weight of `policy.foresight_loss`: in training, the first heads learn to look
            where the hand will be. 0 leaves it out.
        encoder_output_dim: features of the cloud, and of the state, per observation frame.
        down_dims: channels of the U-Net's stages.
        blocks_per_stage: residual blocks per stage: 2 in DP3, 1 in Simple DP3.
        kernel_size: taps of the U-Net's convolutions, odd.
        n_groups: groups of its group normalisations.
        diffusion_step_embed_dim: width of the timestep's embedding.
        num_train_timesteps: steps of the diffusion process.
        num_inference_steps: denoising steps of a prediction; they divide the process evenly.
        prediction: meaning of the network's output (`ddim.Diffusion`): ``sample`` the clean
            trajectory, as in the reference; ``v``; ``preconditioned``.
        sigma_data: standard deviation of normalised actions, for ``preconditioned``.
        noise_draws: noised trajectories trained per encoded observation.
        language: condition the policy on a sentence, too.
        language_encoder: of sentences, one of `langsteer.sentences.ENCODERS`.
        language_dim: width of the sentence's embedding; 384 for both encoders.
        language_dropout: share of training samples with their sentence withheld.
        language_guidance: classifier-free guidance scale of sampling; 1 is plain conditioning.
    """

    horizon: _Length = 16
    n_obs_steps: _Length = 2
    n_action_steps: _Length = 8
    action_dim: _Length = 7
    agent_pos: Literal["full", "tcp"] = "full"
    use_pc_color: bool = False
    point_widths: tuple[_Width, ...] = (64, 128, 256)
    attention_heads: Annotated[int, at_most(256, least=0)] = 0
    foresight: NonNegative = 0.0
    encoder_output_dim: _Width = 64
    down_dims: tuple[_Width, ...] = (512, 1024, 2048)
    blocks_per_stage: _Few = 2
    kernel_size: _Length = 5
    n_groups: _Width = 8
    diffusion_step_embed_dim: _Width = 128
    num_train_timesteps: Annotated[int, at_most(100_000)] = 100
    num_inference_steps: Annotated[int, at_most(100_000)] = 10
    prediction: Literal["sample", "v", "preconditioned"] = "sample"
    sigma_data: Positive = 0.4
    noise_draws: _Length = 1
    language: bool = False
    language_encoder: Annotated[str, one_of(*ENCODERS)] = "minilm"
    language_dim: _Width = 384
    language_dropout: Portion = 0.1
    language_guidance: float = 1.0

    def check(self) -> None:
        """Raise `UserError` if no network or sampler can be built."""
        self._check_shape()
        self.require(
            self.num_inference_steps <= self.num_train_timesteps,
            "num_inference_steps",
            f"at most num_train_timesteps={self.num_train_timesteps}",
        )

    def _check_shape(self) -> None:
        """Whether the U-Net can be built."""
        self.require(2 <= len(self.down_dims) <= 16, "down_dims", "2 to 16 stages")
        self.require(
            not self.foresight or self.attention_heads >= len(FRAMES_AHEAD),
            "foresight",
            f"0, or attention_heads of {len(FRAMES_AHEAD)} or more",
        )
        self.require(1 <= len(self.point_widths) <= 16, "point_widths", "1 to 16 layers")
        self.require(
            all(width % self.n_groups == 0 for width in self.down_dims),
            "down_dims",
            f"multiples of n_groups={self.n_groups}",
        )
        halvings = 2 ** (len(self.down_dims) - 1)
        self.require(self.horizon % halvings == 0, "horizon", f"a multiple of {halvings}")
        last = self.n_obs_steps - 1 + self.n_action_steps
        self.require(last <= self.horizon, "n_action_steps", "actions inside the horizon")
        self.require(self.kernel_size % 2 == 1, "kernel_size", "an odd number")
        self.require(
            self.diffusion_step_embed_dim >= 4 and self.diffusion_step_embed_dim % 2 == 0,
            "diffusion_step_embed_dim",
            "an even number from 4 on",
        )

    def lasting(self) -> dict[str, Any]:
        """The keys that weights are bound to: by their shapes, or by what the output stands for."""
        return {key: value for key, value in self.to_dict().items() if key not in _FREE}

    @property
    def point_dim(self) -> int:
        """Values per point: 3 for XYZ, 6 for XYZRGB."""
        return 6 if self.use_pc_color else 3
