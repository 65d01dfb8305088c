"""mees/calvin's own ``evaluate_policy`` on our environment, and ours on the same chains.

    MEES_CALVIN=CHECKOUT python official_loop.py CHECKPOINT CHAINS MAX_STEPS SCENE FOLDER [draw]

Their files of the loop, the oracle's rules and the sentences run as they are. Models, windows and
logging that a loop imports and does not use are stood in for where they are not installed. With
``draw`` their code draws the 1000 chains anew, in minutes, and they are compared with our table.
It prints both results, and whether each action was the same to the bit.
"""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import numpy as np

# Another number of threads rounds otherwise, and our evaluation chooses its own unless it is told.
os.environ["OMP_NUM_THREADS"] = "1"

# isort: split

from langsteer.calvin.benchmark import chain
from langsteer.compat import calvin_env
from langsteer.configuration import compose
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.evaluation.long_horizon import BenchmarkSettings, evaluate
from langsteer.policies.agent import load_agent
from langsteer.serving.calvin_model import CalvinModel

MODELS = Path(os.environ["MEES_CALVIN"]) / "calvin_models"
DRAW = "draw"
# What the loop imports and does not use without --debug and without calvin_agent's own models.
UNUSED = ("pytorch_lightning", "termcolor", "cv2")
UNUSED_OF_CALVIN = ("calvin_agent.models.mcil", "calvin_agent.utils.utils")


def stand_in(name: str) -> None:
    """A module in which every name is None."""
    module = types.ModuleType(name)
    vars(module)["__getattr__"] = lambda attribute: None
    sys.modules[name] = module


def import_official():
    sys.path.insert(0, str(MODELS))
    calvin_env.install()
    for name in UNUSED:
        if importlib.util.find_spec(name) is None:
            stand_in(name)
    for name in UNUSED_OF_CALVIN:
        stand_in(name)
    from calvin_agent.evaluation import evaluate_policy

    return evaluate_policy


class Seeds:
    """The noise of our evaluation: another for each chain and each of its tasks."""

    def __init__(self, env, seed=0):
        self.seed, self.chain, self.place, self.reset = seed, -1, 0, env.reset
        env.reset = self.count

    def count(self, *args, **states):
        self.chain, self.place = self.chain + 1, 0
        return self.reset(*args, **states)

    def __iter__(self):
        return self

    def __next__(self):
        number = [self.seed, self.chain, self.place]
        self.place += 1
        return int(np.random.default_rng(number).integers(2**31))


def noting_actions():
    """A list that every action of every simulator is put into."""
    taken, step = [], CalvinEnv.step

    def noted(self, action):
        taken.append(np.asarray(action, np.float64))
        return step(self, action)

    CalvinEnv.step = noted  # type: ignore[method-assign]  # of each simulator, made here or there
    return taken


def run_official(checkpoint, chains, max_steps, scene, folder):
    official = import_official()
    if DRAW in sys.argv:
        theirs = official.get_sequences(official.NUM_SEQUENCES)
        assert [tasks for _, tasks in theirs] == [chain(n).tasks for n in range(len(theirs))]
    else:
        theirs = calvin_env.get_sequences(chains)
    official.get_sequences = lambda count: theirs[:chains]
    official.EP_LEN = max_steps
    env = calvin_env.get_env(scene=scene, renderer="depth")
    model = CalvinModel(load_agent(checkpoint), Seeds(env))
    results = official.evaluate_policy(model, env, epoch=0, eval_log_dir=folder / "official")
    env.close()
    return results


def run_ours(checkpoint, chains, max_steps, scene, folder):
    sentences = MODELS / "conf" / "annotations" / "new_playtable_validation.yaml"
    keys = [f"policy.ckpt_path={checkpoint}", f"num_chains={chains}", f"max_steps={max_steps}"]
    keys += [f"env.scene={scene}", "env.renderer=depth", f"annotations={sentences}"]
    keys += [f"output_dir={folder / 'ours'}", "device=cpu"]
    summary = evaluate(BenchmarkSettings.from_dict(compose("evaluate", keys)))
    assert summary is not None, "chains are missing"
    return [result["completed"] for result in summary.results]


def main() -> None:
    checkpoint, chains, max_steps, scene, folder = [one for one in sys.argv[1:] if one != DRAW]
    arguments = checkpoint, int(chains), int(max_steps), scene, Path(folder)
    taken = noting_actions()
    theirs = run_official(*arguments)
    official, taken[:] = [*taken], []
    ours = run_ours(*arguments)
    differ = [
        step
        for step, (one, other) in enumerate(zip(taken, official, strict=False))
        if one[:6].tobytes() != other[:6].tobytes() or (one[6] > 0) != (other[6] > 0)
    ]
    found = {"official": theirs, "ours": ours, "steps": [len(official), len(taken)]}
    print(json.dumps({**found, "same": not differ and len(official) == len(taken)}))
    if differ:
        print(f"from action {differ[0]} on: {official[differ[0]]}, {taken[differ[0]]}")


if __name__ == "__main__":
    main()
