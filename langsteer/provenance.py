"""The source of a result.

Example::

    git_commit()        # "5a1c...", or "5a1c...-dirty" with changed files
"""

import subprocess
from pathlib import Path


def git_commit() -> str | None:
    """The commit of this package's checkout, or None outside of one.

    ``-dirty`` marks changed files, as far as git tracks them.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    found = subprocess.run(  # noqa: S603 - nothing here comes from outside
        [*command, "--exclude=*"],  # no tags: the commit alone
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None
