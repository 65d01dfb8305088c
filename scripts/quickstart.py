"""The main job from nothing on a laptop; `make quickstart` runs it.

python scripts/quickstart.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import quickstart

if __name__ == "__main__":
    quickstart()
