"""Small pictures as inline SVG: no script, no network, a few kilobytes each. Colours follow the page's light or dark theme.

Drawn by hand because a report of six pictures would carry four megabytes of plotly otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, isnan, log10

import numpy as np

from orchestrator.vocabulary import Floats, Ints

W, H, LEFT, RIGHT, TOP, BOTTOM = 560, 260, 48, 28, 14, 40
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888", "#ee8866", "#99ddff", "#44bb99")
_WIDTH, _HEIGHT = W - LEFT - RIGHT, H - TOP - BOTTOM
_MOST_LABELS = 16
_LEAST_SPAN = 0.1  # a tenth of a point of noise should not look like a mountain


def lines(series: Mapping[str, Sequence[float]], labels: Sequence[str], *, hollow: Sequence[bool] = ()) -> str:
    """One line a series of scores over shared labels; a `hollow` point is one that did not count."""
    values = [value for numbers in series.values() for value in numbers]
    middle, half = (min(values) + max(values)) / 2, max(_LEAST_SPAN, max(values) - min(values)) / 2
    ticks = _ticks(middle - half, middle + half)
    step = _WIDTH / max(1, len(labels) - 1)
    parts = [_frame(labels, [LEFT + i * step for i in range(len(labels))], ticks)]
    for number, (name, numbers) in enumerate(series.items()):
        colour = PALETTE[number % len(PALETTE)]
        points = [(LEFT + i * step, _y(value, ticks)) for i, value in enumerate(numbers)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for i, (x, y) in enumerate(points):
            fill = "var(--page)" if i < len(hollow) and hollow[i] else colour
            told = escape(f"{name}, {labels[i]}: {numbers[i]:.3f}")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}" stroke-width="2">'
                f"<title>{told}</title></circle>"
            )
    return _picture("".join(parts), list(series))


def bars(groups: Mapping[str, Sequence[float]], labels: Sequence[str], *, digits: int = 2) -> str:
    """Bars side by side: a place a label, a colour a series, the value on top; NaN leaves its place empty."""
    highest = max((value for values in groups.values() for value in values if not isnan(value)), default=0.0)
    ticks = _ticks(0.0, highest)
    step = _WIDTH / max(1, len(labels))
    width = 0.84 * step / max(1, len(groups))
    parts = [_frame(labels, [LEFT + (i + 0.5) * step for i in range(len(labels))], ticks)]
    for number, (name, values) in enumerate(groups.items()):
        for i, value in enumerate(values):
            if isnan(value):
                continue
            x, y = LEFT + (i + 0.08) * step + number * width, _y(value, ticks)
            told = escape(f"{name}, {labels[i]}: {value:.{digits}f}")
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{0.94 * width:.1f}" height="{H - BOTTOM - y:.1f}" '
                f'fill="{PALETTE[number % len(PALETTE)]}"><title>{told}</title></rect>'
            )
            if width > 6.5 * len(f"{value:.{digits}f}"):
                parts.append(f'<text x="{x + width / 2:.1f}" y="{y - 3:.1f}" text-anchor="middle">{value:.{digits}f}</text>')
    return _picture("".join(parts), list(groups))


def reliability(tables: Mapping[str, Floats]) -> str:
    """Confidence against accuracy, bins as bubbles by share of clips; on the dashed line one can take a confidence at its word.

    `tables` as `metrics.reliability` gives them. The legend tells each one's expected calibration error.
    """
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    parts = [_frame([f"{tick:g}" for tick in ticks], [LEFT + tick * _WIDTH for tick in ticks], ticks)]
    ends = f'x1="{LEFT}" y1="{_y(0, ticks)}" x2="{LEFT + _WIDTH}" y2="{_y(1, ticks)}"'
    parts.append(f'<line {ends} stroke="currentColor" stroke-opacity="0.5" stroke-dasharray="4"/>')
    legend = []
    for number, (name, table) in enumerate(tables.items()):
        colour = PALETTE[number % len(PALETTE)]
        filled = table[table[:, 2] > 0]
        points = [(LEFT + confidence * _WIDTH, _y(accuracy, ticks)) for confidence, accuracy, _ in filled]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-opacity="0.6"/>')
        for (x, y), (confidence, accuracy, share) in zip(points, filled, strict=True):
            told = escape(f"{name}: confidence {confidence:.2f}, accuracy {accuracy:.2f}, {share:.0%} of clips")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 14 * share**0.5:.1f}" fill="{colour}" fill-opacity="0.5" '
                f'stroke="{colour}"><title>{told}</title></circle>'
            )
        error = float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum())
        legend.append(f"{name}: expected calibration error {error:.3f}")
    return _picture("".join(parts), legend, "confidence to the right, accuracy upwards")


def confusion(counts: Ints, names: Sequence[str]) -> str:
    """A table of counts and shares of the row; rows are the truth."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = []
    for name, row in zip(names, counts.tolist(), strict=True):
        total = sum(row)
        cells = "".join(
            f'<td style="background:rgba(68,119,170,{0.8 * count / max(1, total):.2f})">{count}'
            f"<small>{count / max(1, total):.0%}</small></td>"
            for count in row
        )
        body.append(f"<tr><th>{escape(name)}</th>{cells}<td>{total}</td></tr>")
    return f'<table class="confusion"><tr><th>truth \\ said</th>{head}<th>clips</th></tr>{"".join(body)}</table>'


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers that span the values."""
    span = max(high - low, 1e-3 * max(1.0, abs(high)))
    step = 10.0 ** floor(log10(span))
    step = next(step * part for part in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (step * part) <= 6)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [step * tick for tick in range(first, max(last, first + 1) + 1)]


def _y(value: float, ticks: Sequence[float]) -> float:
    return H - BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * _HEIGHT


def _frame(labels: Sequence[str], places: Sequence[float], ticks: Sequence[float]) -> str:
    parts = []
    for tick in ticks:
        y = _y(tick, ticks)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{W - RIGHT}" y2="{y:.1f}" stroke="currentColor" stroke-opacity="0.15"/>'
        )
    every = ceil(len(labels) / _MOST_LABELS)
    longest = max((len(label) for label in labels), default=0)
    crowded = longest * 6.5 * len(labels[::every]) > _WIDTH
    for label, x in list(zip(labels, places, strict=True))[::every]:
        y = H - BOTTOM + 16
        turned = f' transform="rotate(-25 {x:.1f} {y})" text-anchor="end"' if crowded else ' text-anchor="middle"'
        shown = label if len(label) <= 18 else f"{label[:17]}…"
        parts.append(f'<text x="{x:.1f}" y="{y}"{turned}>{escape(shown)}<title>{escape(label)}</title></text>')
    return "".join(parts)


def _picture(inside: str, names: Sequence[str], caption: str = "") -> str:
    told = escape(", ".join(names))
    items = "".join(
        f'<span><i style="background:{PALETTE[i % len(PALETTE)]}"></i>{escape(name)}</span>' for i, name in enumerate(names)
    )
    note = f"<span>{escape(caption)}</span>" if caption else ""
    picture = f'<svg viewBox="0 0 {W} {H}" role="img" aria-label="{told}">{inside}</svg>'
    return f'<figure>{picture}<figcaption class="legend">{items}{note}</figcaption></figure>'
