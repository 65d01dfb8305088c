#!/usr/bin/env bash
# Fetch CALVIN's simulator assets (scenes A-D, about 30 MB, MIT licence) from mees/calvin_env.
#
#   bash scripts/setup_calvin.sh                    # into third_party/calvin_env
#   bash scripts/setup_calvin.sh /path/to/folder    # elsewhere, e.g. on a cluster's shared disk
#
# The commit is the one with which LangSteer is tested. No code of the checkout is run: LangSteer
# reads its URDFs, meshes and scene files. Nothing is installed, and a second run changes nothing.
# Options: --url URL (a mirror), --commit SHA (another version, untested).
set -euo pipefail

url=https://github.com/mees/calvin_env.git
commit=797142c588c21e76717268b7b430958dbd13bf48
folder=

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --url | --commit)
            [ $# -ge 2 ] || fail "$1 needs a value"
            if [ "$1" = --url ]; then url=$2; else commit=$2; fi
            shift 2
            ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        -*) fail "unknown option $1; see --help" ;;
        *)
            [ -z "$folder" ] || fail "one folder expected, found '$folder' and '$1'"
            folder=$1
            shift
            ;;
    esac
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${folder:-$root/third_party/calvin_env}
command -v git > /dev/null || fail "git is not installed"

is_complete() {
    [ -d "$1/data/franka_panda" ] && [ -d "$1/data/blocks" ] &&
        [ -f "$1/conf/scene/calvin_scene_D.yaml" ]
}

if [ -e "$folder" ]; then
    found=$(git -C "$folder" rev-parse --verify --quiet HEAD 2> /dev/null || true)
    [ "$found" = "$commit" ] ||
        fail "$folder exists and is not calvin_env at $commit (found: ${found:-no git checkout}); remove it or name another folder"
    is_complete "$folder" || fail "$folder is incomplete; remove it and run this again"
    echo "$folder is there already."
else
    # The folder appears whole or not at all: a download that breaks off leaves only the partial one.
    partial=$folder.partial
    rm -rf -- "$partial"
    trap 'rm -rf -- "$partial"' EXIT
    mkdir -p -- "$partial"
    git -C "$partial" init --quiet
    git -C "$partial" fetch --depth 1 "$url" "$commit" ||
        fail "could not fetch $commit from $url; is the network there, and the address right?"
    git -C "$partial" -c advice.detachedHead=false checkout --quiet FETCH_HEAD
    is_complete "$partial" || fail "$url at $commit has no data/ and conf/scene/ of CALVIN"
    mv -- "$partial" "$folder"
    trap - EXIT
fi

folder=$(cd "$folder" && pwd)
if [ "$folder" = "$root/third_party/calvin_env" ]; then
    echo "LangSteer finds it there: choose a scene with env.scene=D (or A, B, C)."
    exit 0
fi
cat << EOF
Now tell LangSteer where it is, for example in ~/.bashrc:

    export CALVIN_ENV_ROOT=$(printf '%q' "$folder")

then choose a scene: env.scene=D (or A, B, C).
EOF
