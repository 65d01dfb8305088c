"""Tell a robot what to do and watch it try: the policy that comes with the package, told in words.

``make demo SAY='push the blue block to the right'`` runs it. It leaves a report and a video of each
try.
"""

from dataclasses import replace

from langsteer.configuration import compose
from langsteer.envs.scene import BUILTIN
from langsteer.evaluation.experiment import ExperimentSettings, run_experiment
from langsteer.evaluation.experiment_report import Summary
from langsteer.policies.loading import SHIPPED
from langsteer.steering.language import make_reader


def demo(sentence: str, tries: int = 3, scene: str = BUILTIN, seed: int = 0) -> Summary:
    """Let the policy try what the sentence says.

    The policy is told the sentence, and pointed at what it is about, as its own cameras see it. The
    task that it means decides where a try begins (a drawer to be opened is closed) and what counts
    as done.

    Args:
        sentence: in English, about one of CALVIN's 34 tasks.
        tries: how many starts.
        scene: built-in, or one of CALVIN's.
        seed: of the starts and of the policy's noise.

    Raises:
        UserError: the sentence means none of the tasks, or several; the nearest are named.
    """
    task = make_reader()(sentence).task
    overrides = [
        f"policy.ckpt_path={SHIPPED}",
        f"env.task={task}",
        f"env.scene={scene}",
        "steering=pointing",
        f"num_episodes={tries}",
        f"videos={tries}",
        f"seed={seed}",
    ]
    settings = ExperimentSettings.from_dict(compose("experiment", overrides))
    # Words go in past the command line's syntax, in which a comma or a bracket has a meaning.
    return run_experiment(replace(settings, env=replace(settings.env, instruction=sentence)))
