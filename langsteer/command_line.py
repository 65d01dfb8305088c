"""How a command was called, and whether it is asked for help.

Example::

    parser = argparse.ArgumentParser(prog=called_as())      # python scripts/collect_demos.py
"""

import sys
from pathlib import Path

HELP = ("-h", "--help")


def called_as() -> str:
    """The words before the arguments: ``python scripts/train_dp3.py``, ``langsteer-train``."""
    typed = Path(sys.argv[0])
    return f"python {typed}" if typed.suffix == ".py" else typed.name


def wants_help() -> bool:
    """Whether the arguments ask for help."""
    return any(argument in HELP for argument in sys.argv[1:])
