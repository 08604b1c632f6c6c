"""Pages of results: one HTML file that needs no other file.

Title -> the first lines of a page, with one style for all of them.
"""

from __future__ import annotations

from html import escape

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
.supported { color: #1a7f37 } .inconclusive { color: #8a6d00 } .not-supported { color: #b3261e }
.cannot-decide { color: #6a1b9a }
svg { max-width: 100%; height: auto } small { color: #555 }
"""


def page_head(title: str) -> str:
    """Return the head of a page and its heading; `title` is plain text."""
    shown = escape(title)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">\n'
        f"<title>{shown}</title><style>{_STYLE}</style>\n"
        f"<h1>{shown}</h1>"
    )
