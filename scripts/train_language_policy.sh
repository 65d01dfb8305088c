#!/usr/bin/env bash
# The policy that comes with LangSteer, from nothing: docs/language_policy.md explains each command.
# Interrupted, the same command goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=${1:-data/language_policy}
seed=${2:-42}

pushes= rotations= lifts= slider_lifts= drawer_lifts=
for colour in red blue pink; do
    pushes+=" push_${colour}_block_left push_${colour}_block_right"
    rotations+=" rotate_${colour}_block_left rotate_${colour}_block_right"
    lifts+=" lift_${colour}_block_table"
    slider_lifts+=" lift_${colour}_block_slider"
    drawer_lifts+=" lift_${colour}_block_drawer"
done

# collect NAME SEED EPISODES VALIDATION [TASK ...]: chains of tasks, each annotated from its
# beginning to its end.
collect() {
    local name=$1 seed=$2 episodes=$3 validation=$4
    shift 4
    "$python" scripts/collect_demos.py --play --instructed --colours --save_path "$data/$name" \
        --seed "$seed" --episodes_per_task "$episodes" --validation_per_task "$validation" \
        ${1:+--tasks "$@"}
}

# Lists of names, to be split at blanks. First all 34 tasks; then those with blocks, which take more
# to learn; then those that are seldom feasible in a chain and so have few demonstrations.
# shellcheck disable=SC2086
{
    collect all 11 90 4
    collect blocks 12 50 3 $pushes $rotations $lifts $slider_lifts place_in_slider place_in_drawer \
        stack_block unstack_block push_into_drawer open_drawer move_slider_left move_slider_right
    collect pushes 13 60 2 $pushes $rotations $lifts place_in_slider
    collect drawers 14 30 2 open_drawer place_in_drawer push_into_drawer $drawer_lifts $lifts
    collect stacks 21 120 2 $pushes $rotations $lifts stack_block place_in_slider $slider_lifts
}
[ -e "$data/mixed.zarr" ] || "$python" scripts/convert_calvin_to_zarr.py \
    --root_dir "$data"/{all,blocks,pushes,drawers,stacks} --save_path "$data/mixed.zarr" \
    --num_points 512 --skip img depth
CALVIN_ZARR_PATH="$data/mixed.zarr" "$python" scripts/train_dp3.py \
    training=language_dp3 policy=language_dp3 training.seed="$seed" \
    training.experiment_name="language_policy_$seed" training.resume=auto
"$python" scripts/export_policy.py --half --execute 4 --overwrite --save_path "exported/language_policy_$seed" \
    --ckpt_path "outputs/checkpoints/language_policy_$seed/latest.ckpt"
