"""Convert a CALVIN dataset to a Zarr store, once.

    python scripts/convert_calvin_to_zarr.py \
        --root_dir /path/to/calvin_dataset --save_path data/calvin_training.zarr --overwrite

Run it again after an interruption, and it goes on where it stopped. ``--help`` lists the options;
``docs/zarr_format.md`` describes the result.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.data.convert_command import main

if __name__ == "__main__":
    main()
