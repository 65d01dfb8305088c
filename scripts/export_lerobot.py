"""Write CALVIN's data in LeRobot's format.

    python scripts/export_lerobot.py --source task_D_D --save_path data/calvin_lerobot

``--help`` lists the options; ``docs/integrations.md`` describes the result.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.data.lerobot_command import export_main

if __name__ == "__main__":
    export_main()
