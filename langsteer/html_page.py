"""Pages that need no network: a template with a title, data and plotly's JavaScript in it.

Example::

    page = filled(template, "two episodes", {"episodes": [...]})
"""

import html
import json
import re
from typing import Any

from plotly.offline import get_plotlyjs

_PLACE = re.compile(r"\{\{(title|plotly|data)\}\}")


def filled(template: str, title: str, data: Any) -> str:  # noqa: ANN401 - plain values
    """The template with its ``{{title}}``, ``{{plotly}}`` and ``{{data}}`` filled in.

    ``{{data}}`` stands in a ``<script type="application/json">``, and no text of the data can leave
    it.
    """
    parts = {"title": html.escape(title), "plotly": get_plotlyjs(), "data": _script_data(data)}
    # In one go: a title may itself look like a place.
    return _PLACE.sub(lambda place: parts[place[1]], template)


def _script_data(data: Any) -> str:  # noqa: ANN401 - plain values
    # "</script" would end the element, and "<!--" with "<script" swallow its end.
    return json.dumps(data).replace("<", "\\u003c")
