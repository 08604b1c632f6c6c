"""The pages under docs/: each is linked from an index, and every relative link leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.data.runs.repository import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md"))]
)
INDEXES = (DOCS / "index.md", DOCS / "adr" / "index.md")


def _links(page: Path) -> list[str]:
    """The targets of the links of a page, without those inside code blocks and code spans."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "code", text))


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(page):
    for link in _links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in _anchors(target), f"{page.name} links to {link}"


def test_every_page_is_linked_from_an_index():
    linked = {
        (index.parent / link.partition("#")[0]).resolve()
        for index in INDEXES
        for link in _links(index)
        if "://" not in link
    }
    assert not {page for page in PAGES if page not in linked and page != DOCS / "index.md"}


def test_the_anchors_are_those_of_github():
    # The dots of "tf.data service" go, its spaces become hyphens.
    assert "tfdata-service" in _anchors(DOCS / "input_pipeline.md")
