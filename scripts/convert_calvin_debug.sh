#!/usr/bin/env bash
# Convert CALVIN's debug dataset to data/calvin_debug.zarr:
#   CALVIN_ROOT=/path/to/calvin_debug_dataset bash scripts/convert_calvin_debug.sh
# Further options are passed on, e.g. --num_workers 4.
set -euo pipefail

if [ -z "${CALVIN_ROOT:-}" ]; then
    echo "error: CALVIN_ROOT is not set; export CALVIN_ROOT=/path/to/calvin_debug_dataset" >&2
    exit 2
fi
case "$CALVIN_ROOT" in
    /*) ;;
    *) CALVIN_ROOT="$PWD/$CALVIN_ROOT" ;;
esac
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" scripts/convert_calvin_to_zarr.py \
    --root_dir "$CALVIN_ROOT" --save_path data/calvin_debug.zarr --overwrite "$@"
