"""A trace and its findings as one self-contained page: no network, no framework, inert names.

`selection` decides what is shown, `data` and `links` make plain values of it, `page` puts them
with page.html, page.css and js/ into one text.
"""

from porttrace.analysis.render.html.page import html_report

__all__ = ("html_report",)
