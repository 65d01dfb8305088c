"""LangSteer's policies in LeRobot: ``lerobot-eval --policy.type=langsteer``.

LeRobot imports this package because of its name; the import registers the policy.
"""

from lerobot_policy_langsteer.configuration_langsteer import LangSteerConfig

__all__ = ["LangSteerConfig"]
