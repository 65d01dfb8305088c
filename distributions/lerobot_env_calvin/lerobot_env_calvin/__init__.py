"""CALVIN as an environment of LeRobot: ``lerobot-eval --env.type=calvin``.

LeRobot imports this package because of its name; the import registers the environment.
"""

from lerobot_env_calvin.configuration import CalvinEnv, make_env

__all__ = ["CalvinEnv", "make_env"]
