"""LangSteer: train DP3 on CALVIN, run it in the simulator, steer it with language.

Importing this package imports no subpackage: ``import langsteer`` needs neither torch nor a
simulator. `langsteer.load_agent` brings torch in at its first use. The subpackages, from low to
high: ``calvin`` < ``data`` < ``policies`` < ``training``; ``calvin`` < ``envs`` < ``experts``;
``policies`` < ``steering``; all of them < ``evaluation``.

It also chooses how PyTorch's threads wait (`threads`): this must happen before torch is imported.
"""

import os
import warnings
from typing import TYPE_CHECKING

from langsteer.threads import wait_asleep

if TYPE_CHECKING:  # at run time by `__getattr__`
    from langsteer.policies.agent import load_agent as load_agent

__version__ = "0.1.0"

wait_asleep(os.environ)


def __dir__() -> list[str]:
    return sorted([*globals(), "load_agent", "load_policy"])


def __getattr__(name: str) -> object:
    if name in ("load_agent", "load_policy"):
        from langsteer.policies.agent import load_agent

        if name == "load_policy":
            warnings.warn(
                "langsteer.load_policy returns an Agent in this release only; use "
                "langsteer.load_agent, or langsteer.policies.loading.load_policy for the network",
                DeprecationWarning,
                stacklevel=2,
            )
        return load_agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
