# shellcheck shell=bash
# What the batch scripts scripts/slurm_*.sh share. They source it from the repository's folder.
#
# `run_to_the_end COMMAND...` runs the command as a step, one process per task, so that the job
# survives preemption and its time limit: a warning (a signal to this shell by --signal=B:USR1@..., or
# one that reaches the ranks directly) makes the ranks save and leave with status 75 ("try again
# later"), or ends a command that has nothing to save; the job requeues itself, once. SLURM keeps the
# job's number, and the script, run again, goes on where the ranks left.

readonly TRY_AGAIN_LATER=75 # EX_TEMPFAIL of sysexits.h; langsteer/training/signals.py
readonly KILLED_BY_USR1=138 KILLED_BY_TERM=143

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

mkdir -p logs # without it SLURM drops all output silently
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

# Activates the virtual environment in folder $1 ("": whatever Python is there already) and tries to
# import module $2.
activate_environment() {
    local why
    if [ -n "$1" ]; then
        [ -f "$1/bin/activate" ] ||
            fail "$1: no virtual environment there; set VENV in this script, or run 'make install'"
        # shellcheck disable=SC1091
        . "$1/bin/activate"
    fi
    why=$(python -c "import $2" 2>&1) ||
        fail "$(command -v python || echo python) cannot import $2: ${why##*$'\n'}; is VENV=$1 the environment that LangSteer was installed in?"
}

# Splits the arguments of --test, "SBATCH OPTIONS -- ARGUMENTS" or "ARGUMENTS", into the arrays
# options and rest.
# shellcheck disable=SC2034 # used by the scripts
split_test_arguments() {
    options=() rest=()
    local argument
    for argument in "$@"; do
        if [ "$argument" = -- ]; then
            options=("${rest[@]}") rest=()
        else
            rest+=("$argument")
        fi
    done
}

# The last value of option --$2 among the arguments behind the second, else of the script's ($1)
# #SBATCH lines.
directive() {
    local script=$1 name=$2 argument value
    shift 2
    value=$(sed -n "s/^#SBATCH --$name=\([^ ]*\).*/\1/p" "$script" | tail -n 1)
    for argument in "$@"; do
        case $argument in "--$name="*) value=${argument#*=} ;; esac
    done
    printf '%s\n' "$value"
}

# Says what SLURM makes of script $1 with the sbatch options that follow.
ask_slurm() {
    local answer
    printf 'sbatch options: '
    { sed -n 's/^#SBATCH \([^ ]*\).*/\1/p' "$1"; [ $# -le 1 ] || printf '%s\n' "${@:2}"; } | paste -sd ' '
    if ! command -v sbatch > /dev/null; then
        echo "SLURM: not asked, there is no sbatch on this machine"
    elif answer=$(sbatch --test-only "${@:2}" "$1" 2>&1); then
        echo "SLURM: ${answer#sbatch: }"
    else
        fail "SLURM would refuse the job: $answer
Check partition, account, time and GPUs in the #SBATCH lines of $1 (sinfo lists the partitions)."
    fi
}

# Sets shard to this job's part of its array, "I/N" with I from 0; a job without an array does all.
array_shard() {
    local first=${SLURM_ARRAY_TASK_MIN:-0} last=${SLURM_ARRAY_TASK_MAX:-0} step=${SLURM_ARRAY_TASK_STEP:-1}
    local count=$(((last - first) / step + 1))
    [ "$count" -eq "${SLURM_ARRAY_TASK_COUNT:-1}" ] ||
        fail "the array has gaps; use a plain range such as --array=0-$((${SLURM_ARRAY_TASK_COUNT:-1} - 1)): what is done is not done again"
    # shellcheck disable=SC2034 # used by the scripts
    shard=$(((${SLURM_ARRAY_TASK_ID:-0} - first) / step))/$count
}

step_pid=
warned=
resubmit_with= # what a new job needs to be told, to go on where this one stopped

# Passes a warning on to the ranks. As USR1 whatever it was: srun takes SIGTERM as an order to kill.
# shellcheck disable=SC2317,SC2329 # called by trap
on_warning() {
    echo "$(date '+%F %T') SLURM sent SIG$1: asking the ranks to save and leave"
    warned=$1
    [ -z "$step_pid" ] || kill -USR1 "$step_pid" 2> /dev/null || true
}

require_job() {
    [ -n "${SLURM_JOB_ID:-}" ] || fail "not within a SLURM job; submit this script with sbatch"
}

# Runs a command as a step, and never returns: exits, or requeues the job.
run_to_the_end() {
    local status=0
    trap 'on_warning USR1' USR1
    trap 'on_warning TERM' TERM
    # In the background, since bash obeys traps only between commands and in `wait`.
    # One rank that fails ends the others; nobody is hurried because another has finished.
    srun --kill-on-bad-exit=1 --wait=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
        "$@" &
    step_pid=$!
    while :; do # a trap ends `wait` early
        status=0
        wait "$step_pid" || status=$?
        kill -0 "$step_pid" 2> /dev/null || break
    done
    trap '' USR1 TERM # requeueing ends this shell by SIGTERM; let it finish its sentence
    if should_requeue "$status"; then
        echo "$(date '+%F %T') interrupted: requeueing job $SLURM_JOB_ID"
        scontrol requeue "$SLURM_JOB_ID" && exit "$status"
        fail "job $SLURM_JOB_ID could not be requeued; submit it again ${resubmit_with:+with $resubmit_with }to go on"
    fi
    [ "$status" -eq 0 ] || echo "the step failed with status $status; not requeued" >&2
    exit "$status"
}

# Whether a step that ended with status $1 is to go on: it was interrupted (it said so, or a warning
# killed it), and nobody cancelled the job. What finished, or failed by itself, is never run again.
should_requeue() {
    local job
    if [ -n "$warned" ]; then
        [ "$1" -eq "$TRY_AGAIN_LATER" ] || [ "$1" -gt 128 ] || return 1
    else # of many tasks, those that srun ends because one has failed die by SIGTERM too
        [ "$1" -eq "$TRY_AGAIN_LATER" ] ||
            { [ "${SLURM_NTASKS:-1}" -eq 1 ] && [[ $1 == "$KILLED_BY_USR1" || $1 == "$KILLED_BY_TERM" ]]; } || return 1
    fi
    job=$(scontrol show job -o "$SLURM_JOB_ID") || return 1
    # A job that is cancelled or out of time is completing already; requeueing would revive either.
    [[ $job != *JobState=COMPLETING* && $job != *JobState=CANCELLED* ]] || [[ $job == *Reason=TimeLimit* ]]
}
