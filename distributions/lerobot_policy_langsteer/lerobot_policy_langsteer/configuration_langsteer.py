"""What ``--policy.*`` says of a policy of LangSteer's."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig


@PreTrainedConfig.register_subclass("langsteer")
@dataclass
class LangSteerConfig(PreTrainedConfig):
    """A checkpoint or an exported folder, and how it is steered.

    Attributes:
        checkpoint: its path.
        use_ema: its averaged weights, or the last ones of training.
        seed: of the noise; each environment and each task has noise of its own.
        steering: one of ``conf/steering/``.
        steering_keys: overrides of its keys, as on LangSteer's command line.
        scene: of the environment; a privileged steering reads its blocks.
    """

    checkpoint: str | None = None
    use_ema: bool = True
    seed: int = 0
    steering: str = "none"
    steering_keys: list[str] = field(default_factory=list)
    scene: str = "builtin"
    # The checkpoint normalises by itself.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(
            ("STATE", "VISUAL", "ENV", "ACTION"), NormalizationMode.IDENTITY
        )
    )

    @property
    def observation_delta_indices(self) -> None:
        """The policy keeps its own frames."""
        return

    @property
    def action_delta_indices(self) -> None:
        """It is not trained here."""
        return

    @property
    def reward_delta_indices(self) -> None:
        """It reads no rewards."""
        return

    def get_optimizer_preset(self) -> AdamWConfig:
        """LeRobot asks for one even where nothing is trained."""
        return AdamWConfig()

    def get_scheduler_preset(self) -> None:
        """None: it is not trained here."""
        return

    def validate_features(self) -> None:
        """Raise ValueError where the environment shows no clouds."""
        features = self.input_features or {}
        if features and "observation.point_cloud" not in features:
            raise ValueError(
                "langsteer policies see point clouds: set --env.observation=rgb+cloud "
                f"(the environment has {sorted(features)})"
            )
