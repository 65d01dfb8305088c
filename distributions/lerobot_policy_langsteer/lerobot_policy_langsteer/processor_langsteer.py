"""LeRobot's steps before and after the policy: none but the way to the device and back."""

from typing import Any

from lerobot.processor import PolicyProcessorPipeline, make_default_pre_post_processors

from lerobot_policy_langsteer.configuration_langsteer import LangSteerConfig


def make_langsteer_pre_post_processors(
    config: LangSteerConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """LeRobot's default steps, with nothing to normalise."""
    return make_default_pre_post_processors(config, dataset_stats)
