"""LangSteer: train DP3 on CALVIN, run it in the simulator, steer it with language.

Importing this package imports none of its rooms, so that ``import langsteer`` needs neither torch
nor a simulator. The rooms, from low to high: ``calvin`` < ``data`` < ``policies`` < ``training``;
``calvin`` < ``envs`` < ``experts``; ``policies`` < ``steering``; all of them < ``evaluation``.
"""

__version__ = "0.1.0"
