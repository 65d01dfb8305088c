#!/usr/bin/env bash
# Convert CALVIN to Zarr on a SLURM cluster: the jobs of an array fill one store together.
#
#   export CALVIN_ROOT=/path/to/task_D_D                          # or task_D_D.zip
#   sbatch scripts/slurm_convert_calvin.sh                        # from the repository's folder
#   sbatch --array=0-31 scripts/slurm_convert_calvin.sh --skip img depth
#   bash scripts/slurm_convert_calvin.sh --test                   # check before queueing
#
# Options of scripts/convert_calvin_to_zarr.py are passed on. The store appears at CALVIN_ZARR_PATH
# when the last job is done. Preempted jobs go on where they stopped; where some failed, submit the
# same again, perhaps with fewer jobs: what is there is not converted twice.
#
# ---- edit for your cluster (an option of the sbatch command overrides a line) -------------------
#SBATCH --job-name=convert
#SBATCH --array=0-7
#SBATCH --time=08:00:00
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/convert_%A_%a.out
#SBATCH --error=logs/convert_%A_%a.err
##SBATCH --partition=cpu
##SBATCH --account=my_project
set -euo pipefail

VENV=${VENV-.venv} # empty: the Python that modules or conda provide
CALVIN_ROOT=${CALVIN_ROOT:-/path/to/calvin_dataset}
CALVIN_ZARR_PATH=${CALVIN_ZARR_PATH:-data/calvin_training.zarr}
# ---- no need to edit below ----------------------------------------------------------------------

# SLURM runs a copy of this script somewhere else.
cd "$(dirname "$0")/.."
[ -f scripts/slurm_common.sh ] || cd "${SLURM_SUBMIT_DIR:-.}"
# shellcheck source=scripts/slurm_common.sh
. scripts/slurm_common.sh ||
    { echo "error: $PWD is not LangSteer's folder; call sbatch there" >&2; exit 2; }
activate_environment "$VENV" langsteer.data.convert_command
[ -d "$CALVIN_ROOT/training" ] || [ -d "$CALVIN_ROOT/validation" ] || [ -f "$CALVIN_ROOT" ] ||
    fail "CALVIN_ROOT=$CALVIN_ROOT: no CALVIN dataset there, expected a folder with training/ or validation/"

if [ "${1:-}" = --test ]; then
    shift
    split_test_arguments "$@"
    script=scripts/slurm_convert_calvin.sh
    echo "would convert $CALVIN_ROOT to $CALVIN_ZARR_PATH by array $(directive "$script" array "${options[@]}")"
    python scripts/convert_calvin_to_zarr.py --root_dir "$CALVIN_ROOT" \
        --save_path "$CALVIN_ZARR_PATH" "${rest[@]}" --dry_run
    ask_slurm "$script" "${options[@]}"
    exit
fi
require_job

array_shard
run_to_the_end python scripts/convert_calvin_to_zarr.py --root_dir "$CALVIN_ROOT" \
    --save_path "$CALVIN_ZARR_PATH" --num_workers "${SLURM_CPUS_PER_TASK:-1}" --shard "$shard" "$@"
