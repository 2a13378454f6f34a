"""What docs/ says of the tree, scenarios, run file and journal is so, and no page links to what is not there."""

from __future__ import annotations

import re

import pytest

from tests.pages import DOCS, PAGES, ROOT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_is_written_from_the_code_says_what_the_code_says_now(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "renew it: make pages"


def test_every_link_between_the_pages_leads_somewhere() -> None:
    assert not [
        f"{page.name}: {link}"
        for page in (ROOT / "README.md", *DOCS.glob("*.md"))
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
