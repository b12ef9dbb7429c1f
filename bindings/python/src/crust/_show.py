"""How values look in a notebook: small tables of HTML.

Nothing in them is trusted: what peers have said is escaped.
"""

from __future__ import annotations

import enum
import html
from collections.abc import Iterable, Sequence
from dataclasses import fields

ROWS = 50
"""How many rows a table shows at most; the rest is counted."""


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; without heads the first cell of each row is one."""
    lines = ["<table>", f"<caption>{html.escape(caption)}</caption>"]
    if heads:
        lines.append(f"<tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>")
    more = 0
    for index, row in enumerate(rows):
        if index >= ROWS:
            more += 1
            continue
        cells = [f"<td>{cell(value)}</td>" for value in row]
        if not heads:
            cells[0] = f"<th>{cell(row[0])}</th>"
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if more:
        lines.append(f'<tr><td colspan="{len(heads) or 2}">and {more:,} more</td></tr>')
    lines.append("</table>")
    return "\n".join(lines)


def cell(value: object) -> str:
    """Return one value as HTML; numbers for people, everything else escaped."""
    if isinstance(value, enum.Enum):
        return html.escape(value.name.lower())
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, tuple):
        return "<br>".join(map(cell, value))
    own = getattr(value, "_repr_html_", None)
    return str(own()) if own is not None else html.escape(str(value))


class Shown:
    """A dataclass that a notebook shows as a table of its fields."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        rows = [(field.name, getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]
        return table(type(self).__name__, (), rows)
