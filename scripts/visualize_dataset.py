"""Look at a store in the browser, or check it.

    python scripts/visualize_dataset.py data/calvin_debug.zarr --episodes 0 1
    python scripts/visualize_dataset.py data/calvin_debug.zarr --check --source $CALVIN_ROOT

The first writes ``outputs/dataset.html``, one page with all that it needs inside.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.data.visualize_command import main

if __name__ == "__main__":
    main()
