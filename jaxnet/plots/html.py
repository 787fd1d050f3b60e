"""HTML of results in a notebook: a frame with its style, tables, folded parts, and marks for verdicts.

The results are static: no script, no id, nothing to fetch. Text has the color of the page. A color only repeats what a
sign and a word say; it is JupyterLab's, or a mean tone with a contrast of at least 4 to both white and #111. A media
query for dark mode would go wrong wherever the page's theme differs from that of the system.
"""

import re
from collections.abc import Sequence
from html import escape

UNBROKEN = re.compile(r"-?[\d.]+e[+-]?\d+|[(\[][\d, :]+[)\]]")
# The class is written twice before tables to outweigh the notebook's own rules for them.
STYLE = """
.jaxnet { --ok: var(--jp-success-color1, #2b8a3e); --bad: var(--jp-error-color1, #e03131);
  --unsure: var(--jp-warn-color1, #b86200); color: var(--jp-content-font-color1, currentColor);
  font: 14px/1.45 var(--jp-content-font-family, system-ui, sans-serif); max-width: 52em }
.jaxnet p { margin: .3em 0; overflow-wrap: anywhere }
.jaxnet small, .jaxnet summary { font-size: 12px }
.jaxnet summary { cursor: pointer; margin: .35em 0 }
.jaxnet details { margin: 0 }
.jaxnet details details { margin-left: 1em }
.jaxnet .wide { overflow-x: auto }
.jaxnet.jaxnet table { border-collapse: collapse; margin: .4em 0; font-size: 13px; color: inherit }
.jaxnet.jaxnet table th, .jaxnet.jaxnet table td { padding: .15em .6em .15em 0; border: 0; text-align: left;
  vertical-align: top; white-space: normal; max-width: none; overflow-wrap: anywhere }
.jaxnet.jaxnet table td:first-child { min-width: 6em; white-space: nowrap }
.jaxnet.jaxnet table th { font-weight: 600; white-space: nowrap; border-bottom: 1px solid currentColor }
.jaxnet.jaxnet table .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.jaxnet pre { font: 12px/1.4 var(--jp-code-font-family, ui-monospace, monospace); color: inherit; background: none;
  margin: .3em 0; overflow-x: auto; white-space: pre }
.jaxnet svg { display: block; max-width: 100%; height: auto; color: inherit; overflow: visible }
.jaxnet svg text { fill: currentColor; font-size: 11px; font-family: inherit }
.jaxnet .figures { display: flex; flex-wrap: wrap; gap: .4em 1.2em; margin: .3em 0 }
.jaxnet .mark { white-space: nowrap; font-weight: 700 }
.jaxnet .mark i { display: inline-block; min-width: 1.1em; font-style: normal; text-align: center }
.jaxnet .ok i { color: var(--ok) } .jaxnet .bad i { color: var(--bad) } .jaxnet .unsure i { color: var(--unsure) }
.jaxnet .unbroken { white-space: nowrap }
.jaxnet .head { font-size: 16px }
"""


def framed(*parts: str) -> str:
    """Returns the HTML of one result, with its style.

    Args:
        parts: HTML, whose text is escaped.
    """
    return f'<div class="jaxnet"><style>{STYLE}</style>{"".join(parts)}</div>'


def paragraph(text: str) -> str:
    """Returns a text as a paragraph."""
    return f"<p>{escape(text)}</p>" if text else ""


def unbroken(text: str) -> str:
    """Returns a text as HTML in whose numbers and shapes, `1e-8` and `(5, 8)`, no line breaks.

    Examples:
        >>> unbroken("right to 1e-8")
        'right to <span class="unbroken">1e-8</span>'
    """
    return UNBROKEN.sub(r'<span class="unbroken">\g<0></span>', escape(text))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> str:
    """Returns a table that scrolls sideways where the page is narrow.

    Args:
        header: The names of the columns.
        rows: The cells of each row, as HTML.
        numbers: The names of the columns whose cells are aligned at the right.
    """
    classes = ['class="number"' if name in numbers else "" for name in header]
    head = "".join(f"<th {kind}>{escape(name)}</th>" for name, kind in zip(header, classes, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td {kind}>{cell}</td>" for cell, kind in zip(row, classes, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(summary: str, *parts: str, is_open: bool = False) -> str:
    """Returns HTML that unfolds when its summary, a text, is clicked."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def figures(*parts: str) -> str:
    """Returns figures side by side, or one below the other where the page is narrow."""
    return f'<div class="figures">{"".join(f"<div>{part}</div>" for part in parts)}</div>'
