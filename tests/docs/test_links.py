"""Links of the documentation lead somewhere, and every page can be found from the index."""

from pathlib import Path

import pytest

from pages import PAGES, ROOT, headings, links

INDEX = ROOT / "docs" / "README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_the_index_names_every_page() -> None:
    named = {link.partition("#")[0] for link in links(INDEX)}
    there = {page.name for page in PAGES if page.parent == INDEX.parent and page != INDEX}
    assert not there - named


def test_readme_leads_to_the_index() -> None:
    assert "docs/README.md" in set(links(PAGES[0]))
