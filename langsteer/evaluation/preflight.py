"""Check an evaluation before it waits in a queue: its checkpoint, its configuration, the simulator.

Example::

    python -m langsteer.evaluation.preflight policy.ckpt_path=outputs/checkpoints/x/best.ckpt

``scripts/slurm_evaluate.sh --test`` runs it.
"""

import sys

from langsteer.configuration import compose
from langsteer.errors import exits_cleanly
from langsteer.evaluation.jobs import Stage
from langsteer.evaluation.long_horizon import checked_settings


@exits_cleanly
def main() -> None:
    """Load the checkpoint and open the simulator as a job would, and say what it would play.

    Raises:
        UserError: it could not run; the message says why.
    """
    settings = checked_settings(compose("evaluate", sys.argv[1:]))
    Stage(settings).close()
    print(
        f"would play {settings['num_chains']} chains with {settings['checkpoint']['path']}: "
        f"scene {settings['env']['scene']}, renderer {settings['env']['renderer']}"
    )


if __name__ == "__main__":
    main()
