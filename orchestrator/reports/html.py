"""The shell of our pages: one self-contained file, readable in light and dark, on paper, without network or script.

Every text passes `escape` here or in `svg`; callers hand over plain strings and never HTML of their users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from uuid import uuid4

STYLE = """
:root{color-scheme:light dark;--page:#fff;--soft:#f4f5f7;--line:#d9dce1;--ink:#1d2127;--dim:#5c6470}
@media(prefers-color-scheme:dark){:root{--page:#16181c;--soft:#20242a;--line:#363c45;--ink:#e4e7ec;--dim:#9aa3b0}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1040px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em;margin:0}h2{font-size:1.15em;margin:2.2em 0 .5em}h3{font-size:1em;margin:1.2em 0 .3em}
.dim,small{color:var(--dim)}code{font-size:.9em}a{color:inherit}
.tiles{display:flex;flex-wrap:wrap;gap:.7em;margin:1em 0}.tile{background:var(--soft);border-radius:8px;padding:.5em 1em}
.tile b{display:block;font-size:1.35em;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:.5em 0}
td,th{padding:.25em .7em;text-align:left;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums;vertical-align:top}
th{font-weight:600}td.number,th.number{text-align:right}td.number{white-space:nowrap}
.confusion td,.confusion th{text-align:center;min-width:3.2em;padding:.25em .4em}td:first-child{white-space:nowrap}
.confusion small{display:block;font-size:.75em;color:inherit;opacity:.75}
figure{margin:.5em 0;max-width:640px}svg{width:100%;font-size:11px}svg text{fill:currentColor}
.legend span{margin-right:1.2em;display:inline-block}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
.scroll td:not(.number):not(:first-child){min-width:8em}
.pair{display:flex;flex-wrap:wrap;gap:1.5em}.pair>*{flex:1 1 420px;min-width:0;overflow-x:auto}summary{cursor:pointer}
@media print{details{display:block}body{max-width:none}}
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page."""
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
    )
    body = f"<h1>{escape(title)}</h1>{''.join(parts)}"
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def section(title: str, *parts: str, note: str = "") -> str:
    """A heading and what belongs under it; nothing when all of it is empty."""
    inside = "".join(parts)
    told = f'<p class="dim">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{told}{inside}</section>" if inside else ""


def part(title: str, *parts: str) -> str:
    """A smaller heading and what belongs under it."""
    return f"<h3>{escape(title)}</h3>{''.join(parts)}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, shown: int = 200) -> str:
    """A table; columns that hold only numbers are set right. Beyond `shown` rows it says how many are left out."""
    if not rows:
        return ""
    classes = [' class="number"' if all(_is_number(row[i]) for row in rows) else "" for i in range(len(columns))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(columns, classes, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, classes, strict=True)) + "</tr>"
        for row in rows[:shown]
    )
    more = f'<p class="dim">and {len(rows) - shown} more</p>' if len(rows) > shown else ""
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>{more}'


def folded(title: str, inside: str) -> str:
    """Something most readers skip; nothing when it is empty."""
    return f"<details><summary>{escape(title)}</summary>{inside}</details>" if inside else ""


def tiles(figures: Mapping[str, str]) -> str:
    """The numbers a reader wants first."""
    each = (f'<div class="tile"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in figures.items())
    return f'<div class="tiles">{"".join(each)}</div>'


def paragraph(text: str, *, dim: bool = False) -> str:
    """A paragraph, nothing for an empty text."""
    opening = '<p class="dim">' if dim else "<p>"
    return f"{opening}{escape(text)}</p>" if text else ""


def pair(*parts: str) -> str:
    """Side by side where there is room; nothing when both are empty."""
    inside = "".join(f"<div>{part}</div>" for part in parts if part)
    return f'<div class="pair">{inside}</div>' if inside else ""


def write_page(path: Path, text: str) -> None:
    """Write a page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("%").replace("±", " ").split(" ")[0] or 0)
    except ValueError:
        return False
    return True
