#!/usr/bin/env bash
# CALVIN's long-horizon benchmark on a SLURM cluster: the jobs of an array share the chains, and the
# last one writes the results of all.
#
#   sbatch scripts/slurm_evaluate.sh policy.ckpt_path=outputs/checkpoints/x/best.ckpt
#   sbatch --array=0-31 scripts/slurm_evaluate.sh policy.ckpt_path=... num_chains=1000 env.scene=D
#   bash scripts/slurm_evaluate.sh --test policy.ckpt_path=...    # check before queueing
#
# Arguments are keys of conf/evaluate.yaml. Preempted jobs go on with the chains that are not done;
# where some failed, submit the same again, perhaps with fewer jobs.
#
# ---- edit for your cluster (an option of the sbatch command overrides a line) -------------------
#SBATCH --job-name=evaluate
#SBATCH --array=0-7
#SBATCH --time=08:00:00
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=4G
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/evaluate_%A_%a.out
#SBATCH --error=logs/evaluate_%A_%a.err
##SBATCH --partition=cpu
##SBATCH --account=my_project
set -euo pipefail

VENV=${VENV-.venv} # empty: the Python that modules or conda provide
# export CALVIN_ENV_ROOT=/path/to/calvin_env    # for env.scene=A, B, C or D
# ---- no need to edit below ----------------------------------------------------------------------

# SLURM runs a copy of this script somewhere else.
cd "$(dirname "$0")/.."
[ -f scripts/slurm_common.sh ] || cd "${SLURM_SUBMIT_DIR:-.}"
# shellcheck source=scripts/slurm_common.sh
. scripts/slurm_common.sh ||
    { echo "error: $PWD is not LangSteer's folder; call sbatch there" >&2; exit 2; }
activate_environment "$VENV" langsteer.evaluation.long_horizon

if [ "${1:-}" = --test ]; then
    shift
    split_test_arguments "$@"
    script=scripts/slurm_evaluate.sh
    echo "would evaluate by array $(directive "$script" array "${options[@]}")"
    python -m langsteer.evaluation.long_horizon "${rest[@]}"
    ask_slurm "$script" "${options[@]}"
    exit
fi
require_job

array_shard
run_to_the_end python scripts/evaluate_calvin.py num_workers="${SLURM_CPUS_PER_TASK:-1}" "$@" shard="$shard"
