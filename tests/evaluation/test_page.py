"""No text can break out of a report, and no panel is left out without a word."""

import json
import re

import pytest

from langsteer.evaluation.page import MAX_PANELS, Panel, Section, write_page


@pytest.mark.parametrize("evil", ["</script><script>alert(1)</script>", "<!--<script>", "{{data}}"])
def test_no_text_breaks_out_of_the_page(tmp_path, evil):
    panels = [Panel(evil, [(evil, True)])]
    write_page(tmp_path / "page.html", evil, Section(evil, evil), panels, {evil: evil}, [])
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert "<!--<script>" not in page
    data = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    found = json.loads(data[1])
    assert (found["title"], found["panels"][0]["title"], found["settings"]) == (
        evil, evil, {evil: evil},
    )  # fmt: skip


def test_page_that_holds_some_of_the_panels_says_so():
    section = Section("Episodes", "Open one.")
    assert section.of(MAX_PANELS) == section
    assert section.of(1000).note == "Open one. The first 100 of 1,000 are shown."
