"""The last page of the quickstart: what came out, beside its control, and what to do next.

Example::

    path = write_page(Path("outputs/quickstart"), outcome, seconds=412.0)
    print(path.resolve().as_uri())
"""

import html
import os
import shlex
import sys
from pathlib import Path

from langsteer.calvin.instructions import phrasings
from langsteer.evaluation.attempts import blank_of
from langsteer.evaluation.rates import Rate
from langsteer.evaluation.table import BASE
from langsteer.files import replacing
from langsteer.quickstart import FILMS, STEERING, STEPS, TASKS, Outcome

PAGE = "index.html"
_METHODS = {
    STEERING: "pointed",
    BASE: "left alone",
    blank_of(STEERING): "a blank network, pointed",
}
_NEXT = (
    (
        "Ask for something else",
        "{bin}/langsteer-experiment policy.ckpt_path={checkpoint} steering=pointing "
        "env.instruction='push the door to the left'",
    ),
    ("See what it was trained on", "{bin}/langsteer-visualize {store} --episodes 0 1 2"),
    (
        "Train on CALVIN's own data",
        "{bin}/langsteer-convert --root_dir /path/to/calvin_dataset "
        "--save_path data/calvin_training.zarr",
    ),
)
_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LangSteer: quickstart</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 860px; margin: 0 auto; padding: 16px; }}
  img {{ max-width: 100%; height: auto; border-radius: 6px; background: #fff; }}
  table {{ border-collapse: collapse; }}
  th, td {{ text-align: left; padding: 4px 18px 4px 0; border-bottom: 1px solid #8884; }}
  pre {{ white-space: pre-wrap; overflow-wrap: anywhere; padding: 10px; border: 1px solid #8884;
         border-radius: 6px; font-size: 13px; }}
  figure {{ margin: 0 0 16px; }}
  figcaption, .note {{ opacity: 0.75; font-size: 14px; }}
</style>
</head>
<body>
<h1>One policy, two sentences</h1>
<img src="{pointed}" alt="the pointed policy from one start, once for each sentence">
<p>The policy was trained on {demonstrations} and was never told what they show. A sentence draws
the hand to the thing it is about, and the policy does the rest.</p>
<table><tr><th>asked for</th>{heads}</tr>
{rows}
</table>
<p class="note">From {starts} starts that both tasks can begin from, in {steps} steps at most, with
95 % intervals. Pointed at the drawer from other starts: {rate}.</p>
<h2>Is it the policy?</h2>
<p>Two controls begin at the same starts with the same noise. Left alone, the policy does what it
likes. A blank network knows nothing: what it does when pointed is the pointing's own doing.</p>
<figure><img src="{alone}" alt="the policy left alone"><figcaption>left alone</figcaption></figure>
<figure><img src="{blank}" alt="a blank network"><figcaption>a blank network, pointed</figcaption>
</figure>
<h2>How it learned</h2>
<img src="{curves}" alt="curves of the training">
<h2>Look closer</h2>
<ul>
<li><a href="{experiment}">the episodes</a>, with videos and paths</li>
<li><a href="two_sentences/report.html">pointed, left alone and blank</a>, side by side</li>
</ul>
<h2>What to do next</h2>
{next}
<p class="note">All of it took {minutes:.1f} minutes.</p>
</body>
</html>
"""


def write_page(folder: Path, outcome: Outcome, seconds: float) -> Path:
    """Write ``index.html`` into the quickstart's folder.

    Args:
        folder: the quickstart's.
        outcome: its result.
        seconds: the time of all stages.
    """
    curves, path = outcome.checkpoint.with_name("curves.png"), folder / PAGE
    places = {"checkpoint": outcome.checkpoint, "store": outcome.store, "bin": _commands()}
    page = _TEMPLATE.format(
        demonstrations=f"{outcome.demonstrations} demonstrations",
        heads="".join(f"<th>{words}</th>" for words in _METHODS.values()),
        rows="\n".join(_row(outcome, task) for task in TASKS),
        starts=len({one.start for one in outcome.attempts}),
        steps=STEPS,
        rate=outcome.summary.rate,
        pointed=FILMS[STEERING],
        alone=FILMS[BASE],
        blank=FILMS[blank_of(STEERING)],
        curves=os.path.relpath(curves, folder),
        experiment=os.path.relpath(outcome.summary.folder / "report.html", folder),
        next="\n".join(
            f"<p>{title}:</p><pre>{html.escape(command.format(**places))}</pre>"
            for title, command in _NEXT
        ),
        minutes=seconds / 60,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _commands() -> str:
    """The folder of LangSteer's commands, for a shell: ``make quickstart`` puts it on no PATH."""
    folder, here = Path(sys.executable).parent, Path.cwd()
    return shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))


def _row(outcome: Outcome, task: str) -> str:
    cells = [f"\u201c{phrasings(task)[0]}\u201d"]
    for method in _METHODS:
        tried = [one for one in outcome.attempts if (one.task, one.method) == (task, method)]
        rate = Rate(sum(one.success for one in tried), len(tried))
        low, high = (100 * bound for bound in rate.interval)
        cells.append(f"{rate.successes} of {rate.attempts} ({low:.0f}-{high:.0f} %)")
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
