"""Make a folder to share out of a training checkpoint.

    python scripts/export_policy.py \\
        --ckpt_path outputs/checkpoints/my_run/latest.ckpt --save_path exported/my_run

``--help`` lists the options. `langsteer.load_agent` and ``policy.ckpt_path=`` take the folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.policies.export_command import main

if __name__ == "__main__":
    main()
