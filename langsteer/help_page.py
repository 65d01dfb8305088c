"""The ``--help`` of commands with ``key=value`` arguments: examples, choices, every key.

Example::

    show_help("train")      # python scripts/train_dp3.py training=dp3_debug --help
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from langsteer.calvin.instructions import phrasings
from langsteer.calvin.task import TASKS
from langsteer.command_line import HELP, called_as
from langsteer.configuration import compose, config_folder, option_note
from langsteer.envs.scene import SCENE_NOTES
from langsteer.settings import shown

_EPISODES = """
The same command again goes on with {} that are not finished yet.
"""
EXAMPLES = {
    "train": """
Train DP3 on a converted CALVIN dataset.

  export CALVIN_ZARR_PATH=data/calvin_training.zarr
  {command} training=dp3_calvin              # one GPU, or the CPU
  torchrun --nproc-per-node 4 scripts/train_dp3.py           # four GPUs of one machine
  sbatch scripts/slurm_train_dp3.sh                          # a cluster
  {command} training=dp3_calvin training.resume=true

Exit status: 0 finished, 2 bad input, 75 asked to stop by a signal and ready to be resumed.
""",
    "experiment": """
Run a trained policy in the simulator and measure its success rate.

  {command} policy.ckpt_path=outputs/checkpoints/dp3_calvin_20260213/latest.ckpt num_episodes=10
  ... env.task=close_drawer env.scene=D seed=7 num_workers=4
  ... steering=reference steering.demonstrations=data/demos env.instruction="pull the drawer open"
"""
    + _EPISODES.format("episodes"),
    "evaluate": """
Measure a policy on CALVIN's long-horizon benchmark (LH-MTLC).

  {command} policy.ckpt_path=outputs/checkpoints/dp3_calvin_20260213/latest.ckpt num_workers=8
  ... num_chains=20 env.scene=D annotations=path/to/new_playtable_validation.yaml
  ... chains=100-399                                # these of the 1000, both ends included
  ... output_dir=outputs/calvin/run shard=3/8       # one of eight jobs that share the folder
  ... policy.url=ws://127.0.0.1:8000                # a policy in another process, docs/serving.md
"""
    + _EPISODES.format("chains"),
    "evaluate_steering": """
Compare steerings of one unconditional policy: same starts, same noise, each instruction in turn.

  {command} checkpoint=outputs/checkpoints/base/latest.ckpt \\
      steering.demonstrations=data/demos starts=10 num_workers=4
  ... methods=[none,reference] steering.unguided_last=1     # for all methods but none
  ... output_dir=outputs/steering/run shard=3/8     # one of eight jobs that share the folder
"""
    + _EPISODES.format("starts"),
    "serve": """
Serve a policy to other processes by openpi's protocol (websocket, msgpack).

  {command} policy.ckpt_path=outputs/checkpoints/my_run/latest.ckpt
  ... port=8001 device=cuda

docs/serving.md says what is sent and answered. Only this machine reaches the server, unless host
says otherwise. Ctrl-C ends it.
""",
}
"""Name of the configuration to the purpose of its command."""

_KEY = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?:[^#]*?\s#\s?(?P<note>.*))?")
_WIDTH = 40


def show_help(config: str) -> None:
    """Print the help of the command of ``conf/<config>.yaml``.

    Overrides among the process's arguments change the keys and values shown.

    Raises:
        UserError: an override is wrong.
    """
    overrides = [argument for argument in sys.argv[1:] if argument not in HELP]
    values = compose(config, overrides)
    chosen = _chosen(config, overrides)
    lines = [EXAMPLES[config].strip().format(command=called_as()), ""]
    for group in chosen:
        lines += _choices(group, chosen[group])
    if "env" in chosen:
        lines += ["scenes, env.scene=", *(_row(*note) for note in SCENE_NOTES.items()), ""]
        key = "tasks, env.task=" if "task" in values["env"] else "tasks, tasks=[...]"
        lines += [key if config != "evaluate" else "tasks of the chains"]
        lines += [*(_row(task, f"\u201c{phrasings(task)[0]}\u201d") for task in TASKS), ""]
    lines += ["Keys and their values, each can be set as key=value:", ""]
    notes = _notes(config, chosen)
    lines += [_row(f"{key}={shown(value)}", notes.get(key, "")) for key, value in _leaves(values)]
    print("\n".join(lines))


def _chosen(config: str, overrides: list[str]) -> dict[str, str]:
    """Group to its chosen option, in the configuration's order."""
    content = yaml.safe_load(_file(config).read_text(encoding="utf-8"))
    defaults = [item for item in content.get("defaults", ()) if isinstance(item, dict)]
    chosen = {group: str(option) for item in defaults for group, option in item.items()}
    named = dict(item.partition("=")[::2] for item in overrides)
    return {group: named.get(group, option) for group, option in chosen.items()}


def _file(*parts: str) -> Path:
    return config_folder().joinpath(*parts).with_suffix(".yaml")


def _choices(group: str, chosen: str) -> list[str]:
    """A heading and a line for each option of a group; nothing if there is but one."""
    options = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
    if len(options) < 2:
        return []
    mark = {chosen: " (taken)"}
    rows = (_row(one, option_note(group, one) + mark.get(one, "")) for one in options)
    return [f"{group}=", *rows, ""]


def _notes(config: str, chosen: Mapping[str, str]) -> dict[str, str]:
    """Dotted key to the comment beside it; an option's own come before those it builds on."""
    notes = dict(_notes_of(_file(config), ""))
    for group, option in chosen.items():
        notes = {**_notes_of_option(group, option), **notes}
    return notes


def _notes_of_option(group: str, option: str) -> dict[str, str]:
    path = _file(group, option)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    notes: dict[str, str] = {}
    for base in content.get("defaults", ()):
        notes |= {} if base == "_self_" else _notes_of_option(group, base)
    return notes | dict(_notes_of(path, f"{group}."))


def _notes_of(path: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """The comments of a file in YAML, by the dotted names of their keys."""
    above: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = _KEY.match(line)
        if found is None:
            continue
        depth = len(found["indent"])
        above = [(indent, key) for indent, key in above if indent < depth] + [(depth, found["key"])]
        if found["note"]:
            yield prefix + ".".join(key for _, key in above), found["note"]


def _leaves(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _row(name: str, note: str) -> str:
    return f"  {name:<{_WIDTH}}  {note}".rstrip()
