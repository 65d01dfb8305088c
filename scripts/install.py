"""Install the package with extras into this Python's environment; the Makefile runs it.

    .venv/bin/python scripts/install.py dev,sim

It shows what pip is at and for how long. What pip says stands in ``install.log`` in the
environment's folder, and on the screen only if it fails.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
STEPS = ("Collecting", "Downloading", "Building", "Preparing", "Installing")
LAST_LINES = 15


def main() -> None:
    """Install PyBullet by its hash, then everything."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    extras = sys.argv[1]
    log = Path(sys.prefix) / "install.log"
    print(f"installing for Python {sys.version.split()[0]} into {sys.prefix}", flush=True)
    with log.open("w") as file:
        if "sim" in extras.split(","):
            _install(["--no-deps", "--require-hashes", "-r", "pybullet.txt"], file)
        _install(["-c", "constraints.txt", "-e", f".[{extras}]"], file)


def _install(arguments: list[str], log: TextIO) -> None:
    """Run pip, show its steps, and end with its last words if it fails."""
    process = subprocess.Popen(  # noqa: S603 - pip of this environment, with our own arguments
        [*PIP, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines: list[str] = []
    reader = threading.Thread(target=_read, args=(process, lines, log))
    reader.start()
    _show_steps(reader, lines)
    if process.wait():
        print("".join(lines[-LAST_LINES:]), end="", file=sys.stderr)
        sys.exit(f"the installation failed; all that pip said stands in {log.name}")


def _read(process: subprocess.Popen[str], lines: list[str], log: TextIO) -> None:
    for line in process.stdout or ():
        lines.append(line)
        log.write(line)
        log.flush()


def _show_steps(reader: threading.Thread, lines: list[str]) -> None:
    """One line that is written over on a terminal, a new one every 15 s elsewhere."""
    terminal = sys.stdout.isatty()
    began = time.monotonic()
    while reader.is_alive():
        reader.join(0.5 if terminal else 15)
        steps = [line.split() for line in lines if line.lstrip().startswith(STEPS)]
        step = " ".join(steps[-1])[:70] if steps else "starting"
        minutes, seconds = divmod(round(time.monotonic() - began), 60)
        text = f"  {minutes}:{seconds:02d}  {len(steps)} steps, now: {step}"
        print(f"\r{text:<99}" if terminal else text, end="" if terminal else "\n", flush=True)
    if terminal:
        print()


if __name__ == "__main__":
    main()
