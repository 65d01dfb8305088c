"""LangSteer: train DP3 on CALVIN, run it in the simulator, steer it with language.

Importing this package imports none of its rooms, so that ``import langsteer`` needs neither torch
nor a simulator; `langsteer.load_policy` brings torch in when it is first asked for. The rooms, from
low to high: ``calvin`` < ``data`` < ``policies`` < ``training``; ``calvin`` < ``envs`` <
``experts``; ``policies`` < ``steering``; all of them < ``evaluation``.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "load_policy":
        from langsteer.policies.agent import load_agent

        return load_agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
