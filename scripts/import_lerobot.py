"""Make a CALVIN folder of a LeRobot dataset with depth.

    python scripts/import_lerobot.py --source data/calvin_lerobot --save_path calvin_again

``--help`` lists the options; ``docs/integrations.md`` describes the result.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.data.lerobot_command import import_main

if __name__ == "__main__":
    import_main()
