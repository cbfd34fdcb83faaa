"""Small pictures as inline SVG: no script, no network, a few kilobytes each. Colours follow the page's light or dark theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from orchestrator.vocabulary import Floats, Ints

W, H, LEFT, BOTTOM, TOP = 460, 240, 44, 34, 14
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#ee8866", "#99ddff", "#44bb99")


def lines(series: Mapping[str, Sequence[float]], labels: Sequence[str], *, low: float, high: float) -> str:
    """One line a series over shared labels."""
    step = (W - LEFT - 10) / max(1, len(labels) - 1)
    parts = [_axes(labels, step, low, high)]
    for colour, (name, values) in zip(PALETTE, series.items(), strict=False):
        points = [(LEFT + i * step, _y(value, low, high)) for i, value in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{escape(name)} {value:.3f}</title></circle>'
            for (x, y), value in zip(points, values, strict=True)
        ]
    return _svg("".join(parts)) + _legend(list(series))


def bars(groups: Mapping[str, Sequence[float]], labels: Sequence[str], *, high: float) -> str:
    """Bars side by side: a group a label, a colour a series."""
    step = (W - LEFT - 10) / max(1, len(labels))
    width = 0.8 * step / max(1, len(groups))
    parts = [_axes(labels, step, 0.0, high, centred=True)]
    for number, (colour, (name, values)) in enumerate(zip(PALETTE, groups.items(), strict=False)):
        for i, value in enumerate(values):
            x, y = LEFT + i * step + 0.1 * step + number * width, _y(value, 0.0, high)
            title = f"{escape(name)}, {escape(labels[i])}: {value:.3f}"
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{H - BOTTOM - y:.1f}" fill="{colour}">'
                f"<title>{title}</title></rect>"
            )
    return _svg("".join(parts)) + _legend(list(groups))


def reliability(rows: Mapping[str, Floats]) -> str:
    """Confidence against accuracy; the dashed line is perfect calibration. `rows` as `metrics.reliability` gives them."""
    parts = [_axes([f"{tick / 5:.1f}" for tick in range(6)], (W - LEFT - 10) / 5, 0.0, 1.0)]
    parts.append(f'<line x1="{LEFT}" y1="{_y(0, 0, 1)}" x2="{W - 10}" y2="{_y(1, 0, 1)}" stroke="gray" stroke-dasharray="4"/>')
    for colour, (name, table) in zip(PALETTE, rows.items(), strict=False):
        for confidence, accuracy, share in table[table[:, 2] > 0]:
            x = LEFT + confidence * (W - LEFT - 10)
            radius = 2 + 14 * share**0.5
            parts.append(
                f'<circle cx="{x:.1f}" cy="{_y(accuracy, 0, 1):.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.6">'
                f"<title>{escape(name)}: confidence {confidence:.2f}, accuracy {accuracy:.2f}, {share:.0%} of clips</title></circle>"
            )
    return _svg("".join(parts)) + _legend(list(rows))


def confusion(counts: Ints, names: Sequence[str]) -> str:
    """A table with cells shaded by share of the row; rows are the truth."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = []
    for name, row in zip(names, counts, strict=True):
        total = max(1, int(row.sum()))
        cells = "".join(f'<td style="background:rgba(68,119,170,{0.85 * v / total:.2f})">{v}</td>' for v in row.tolist())
        body.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return f'<table class="confusion"><tr><th>truth \\ said</th>{head}</tr>{"".join(body)}</table>'


def _y(value: float, low: float, high: float) -> float:
    return H - BOTTOM - (value - low) / max(1e-9, high - low) * (H - BOTTOM - TOP)


def _axes(labels: Sequence[str], step: float, low: float, high: float, *, centred: bool = False) -> str:
    parts = [f'<line x1="{LEFT}" y1="{H - BOTTOM}" x2="{W - 10}" y2="{H - BOTTOM}" stroke="gray"/>']
    for tick in range(5):
        value = low + (high - low) * tick / 4
        y = _y(value, low, high)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{W - 10}" y2="{y:.1f}" stroke="gray" stroke-opacity="0.2"/>')
    for i, label in enumerate(labels):
        x = LEFT + (i + (0.5 if centred else 0)) * step
        parts.append(f'<text x="{x:.1f}" y="{H - BOTTOM + 16}" text-anchor="middle">{escape(label)}</text>')
    return "".join(parts)


def _svg(inside: str) -> str:
    return f'<svg viewBox="0 0 {W} {H}" role="img">{inside}</svg>'


def _legend(names: Sequence[str]) -> str:
    items = (f'<span><i style="background:{c}"></i>{escape(n)}</span>' for c, n in zip(PALETTE, names, strict=False))
    return f'<p class="legend">{"".join(items)}</p>'
