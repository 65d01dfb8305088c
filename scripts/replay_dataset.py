"""Replay a CALVIN dataset's annotated windows and report whether the oracle sees their tasks.

python scripts/replay_dataset.py data/demos --video outputs/replay.mp4
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import replay

if __name__ == "__main__":
    replay()
