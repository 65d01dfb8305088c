"""Record demonstrations of scripted experts as a CALVIN dataset folder.

    python scripts/collect_demos.py --save_path data/demos --tasks open_drawer

Run it again after an interruption, and it goes on where it stopped. ``--help`` lists the options;
``docs/demonstrations.md`` describes the experts and the result.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import collect

if __name__ == "__main__":
    collect()
