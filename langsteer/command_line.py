"""How a command was called, and whether it is asked for help.

Example::

    parser = command_parser("Record demonstrations.")    # usage: python scripts/collect_demos.py
"""

import argparse
import sys
from pathlib import Path

HELP = ("-h", "--help")


def called_as() -> str:
    """The words before the arguments: ``python scripts/train_dp3.py``, ``langsteer-train``."""
    typed = Path(sys.argv[0])
    return f"python {typed}" if typed.suffix == ".py" else typed.name


def command_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser of arguments; its help names the command as it was called."""
    return argparse.ArgumentParser(prog=called_as(), description=description, epilog=epilog)


def wants_help() -> bool:
    """Whether the arguments ask for help."""
    return any(argument in HELP for argument in sys.argv[1:])
