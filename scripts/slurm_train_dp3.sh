#!/usr/bin/env bash
# Train DP3 on a SLURM cluster, one process per GPU, on one node or many.
#
#   sbatch scripts/slurm_train_dp3.sh                             # from the repository's folder
#   sbatch scripts/slurm_train_dp3.sh training.batch_size=64      # keys of conf/train.yaml
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 scripts/slurm_train_dp3.sh
#   sbatch --ntasks-per-node=1 --gpus-per-node=0 scripts/slurm_train_dp3.sh training=dp3_debug   # CPU
#   bash scripts/slurm_train_dp3.sh --test                        # check all this before queueing
#   bash scripts/slurm_train_dp3.sh --test --nodes=4 -- training.batch_size=64
#
# Preempted, or out of time, the job saves, requeues itself and goes on at that very step.
# docs/slurm.md tells the rest.
#
# ---- edit for your cluster (an option of the sbatch command overrides a line) -------------------
#SBATCH --job-name=dp3
#SBATCH --time=24:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=4G
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/dp3_%j.out
#SBATCH --error=logs/dp3_%j.err
##SBATCH --partition=gpu
##SBATCH --account=my_project
set -euo pipefail

# module load cuda
VENV=${VENV-.venv} # empty: the Python that modules or conda provide
export CALVIN_ZARR_PATH=${CALVIN_ZARR_PATH:-data/calvin_training.zarr}
# MASTER_ADDR (first node) and MASTER_PORT (from the job's number) can be set here too.
# ---- no need to edit below ----------------------------------------------------------------------

# SLURM runs a copy of this script somewhere else.
cd "$(dirname "$0")/.."
[ -f scripts/slurm_common.sh ] || cd "${SLURM_SUBMIT_DIR:-.}"
# shellcheck source=scripts/slurm_common.sh
. scripts/slurm_common.sh ||
    { echo "error: $PWD is not LangSteer's folder; call sbatch there" >&2; exit 2; }
activate_environment "$VENV" langsteer.training.dp3_trainer

if [ "${1:-}" = --test ]; then
    shift
    split_test_arguments "$@"
    script=scripts/slurm_train_dp3.sh
    mapfile -t directives < <(sed -n 's/^#SBATCH \(--[^ ]*\).*/\1/p' "$script")
    python -m langsteer.training.preflight \
        "${directives[@]/#/--directive=}" "${options[@]/#/--option=}" "${rest[@]}"
    ask_slurm "$script" "${options[@]}"
    exit
fi
require_job

gpus=${SLURM_GPUS_ON_NODE:-0}
nodes=${SLURM_JOB_NUM_NODES:-1}
tasks=$((${SLURM_NTASKS:-$((${SLURM_NTASKS_PER_NODE:-1} * nodes))} / nodes))
[ "$gpus" -eq 0 ] || [ "$gpus" -eq "$tasks" ] ||
    fail "$gpus GPUs but $tasks tasks on each node; set --ntasks-per-node=$gpus and --gpus-per-node=$gpus alike"

# One folder for all runs of this job, so that a requeued one goes on there. Arguments come later
# and win. A requeued job goes on even if it was told to begin anew or somewhere else.
# shellcheck disable=SC2016 # ${training.name} is for the configuration
name='training.experiment_name=${training.name}_'$SLURM_JOB_ID
arguments=("$name" training.resume=auto "$@")
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || arguments+=(training.resume=auto)
# shellcheck disable=SC2034 # used by run_to_the_end
resubmit_with="'$name' in front of its own keys"
run_to_the_end python scripts/train_dp3.py "${arguments[@]}"
