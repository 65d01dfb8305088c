"""DP3, the 3D Diffusion Policy: observation of points to a trajectory of actions.

Example::

    from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
"""

from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.ddim import DenoisingStep, Guidance, StepPlan
from langsteer.policies.dp3.normalizer import Normalizer
from langsteer.policies.dp3.policy import DP3, Observation

__all__ = [
    "DP3",
    "DP3Config",
    "DenoisingStep",
    "Guidance",
    "Normalizer",
    "Observation",
    "StepPlan",
]
