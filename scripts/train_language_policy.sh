#!/usr/bin/env bash
# The policy that comes with LangSteer, from nothing: docs/language_policy.md explains each command.
# Interrupted, the same command goes on where it was.
#
#     bash scripts/train_language_policy.sh [FOLDER [SEED [SCENE ...]]]
#
# FOLDER keeps the demonstrations (40 GB for each list of scenes), SEED is the training's. SCENE is
# builtin or one of CALVIN's A to D (scripts/setup_calvin.sh); several share the demonstrations.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=${1:-data/language_policy}
seed=${2:-42}
scenes=("${@:3}")
[ $# -gt 2 ] || scenes=(builtin)
mix=$(IFS=_ && echo "${scenes[*]}")
policy=language_policy_${mix}_$seed

pushes='' rotations='' lifts='' slider_lifts='' drawer_lifts=''
for colour in red blue pink; do
    pushes+=" push_${colour}_block_left push_${colour}_block_right"
    rotations+=" rotate_${colour}_block_left rotate_${colour}_block_right"
    lifts+=" lift_${colour}_block_table"
    slider_lifts+=" lift_${colour}_block_slider"
    drawer_lifts+=" lift_${colour}_block_drawer"
done

# collect NAME SEED EPISODES VALIDATION [TASK ...]: chains of tasks in each scene, each task annotated
# from its beginning to its end.
collect() {
    local name=$1 seed=$2 episodes=$3 validation=$4 n=${#scenes[@]} i folder
    shift 4
    for i in "${!scenes[@]}"; do
        folder=$data/${scenes[i]}_$name
        datasets+=("$folder")
        "$python" scripts/collect_demos.py --play --instructed --colours --scene "${scenes[i]}" \
            --save_path "$folder" --seed $((seed + 100 * i)) \
            --episodes_per_task $((episodes / n)) --validation_per_task $(((validation + n - 1) / n)) \
            ${1:+--tasks "$@"}
    done
}

datasets=()
# Lists of names, to be split at blanks. First all 34 tasks; then those with blocks, which take more
# to learn; then those that are seldom feasible in a chain and so have few demonstrations: blocks in
# the drawer, stacks, a block to push into the drawer after another push.
# shellcheck disable=SC2086
{
    collect all 11 90 4
    collect blocks 12 50 3 $pushes $rotations $lifts $slider_lifts place_in_slider place_in_drawer \
        stack_block unstack_block push_into_drawer open_drawer move_slider_left move_slider_right
    collect pushes 13 60 2 $pushes $rotations $lifts place_in_slider
    collect drawers 14 30 2 open_drawer place_in_drawer push_into_drawer $drawer_lifts $lifts
    collect stacks 21 120 2 $pushes $rotations $lifts stack_block place_in_slider $slider_lifts
    collect into_drawer 22 120 3 open_drawer push_into_drawer $pushes
    collect towers 23 60 2 $lifts $slider_lifts stack_block unstack_block
}
[ -e "$data/$mix.zarr" ] || "$python" scripts/convert_calvin_to_zarr.py \
    --root_dir "${datasets[@]}" --save_path "$data/$mix.zarr" \
    --num_points 512 --skip img depth
CALVIN_ZARR_PATH="$data/$mix.zarr" "$python" scripts/train_dp3.py \
    training=language_dp3 policy=language_dp3 training.seed="$seed" \
    training.experiment_name="$policy" training.resume=auto
"$python" scripts/export_policy.py --half --execute 4 --overwrite --save_path "exported/$policy" \
    --ckpt_path "outputs/checkpoints/$policy/latest.ckpt"
