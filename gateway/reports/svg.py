"""Small charts as SVG text: axes, lines, bands and marks, in black, grey and two colours. Every label is escaped."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 560, 320, 56
_LETTER, _LINE = 6.5, 12  # about the size of a letter at 11 px

XY = tuple[float, float]


class Chart:
    """A chart with linear axes. Points are in the data's units."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], *, x_title: str, y_title: str, title: str) -> None:
        """xs, ys: everything that must be inside."""
        self._x, self._y = _range(xs), _range(ys)
        self._title, self._parts = title, _frame(self._x, self._y, x_title, y_title)
        self._labels: list[tuple[float, float, float]] = []  # left, right, baseline of each

    def line(self, points: Sequence[XY], *, style: str) -> None:
        """Connect points. style: a class of the page's style sheet."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._at, points))
        self._parts.append(f'<polyline class="{escape(style, quote=True)}" points="{path}"/>')

    def band(self, xs: Sequence[float], lower: Sequence[float], upper: Sequence[float]) -> None:
        """The area between two lines."""
        there = list(zip(xs, upper, strict=True))
        back = list(zip(xs, lower, strict=True))[::-1]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._at, [*there, *back]))
        self._parts.append(f'<polygon class="band" points="{path}"/>')

    def mark(self, point: XY, label: str = "", *, lower: float | None = None, upper: float | None = None) -> None:
        """A dot with its label, and a bar from `lower` to `upper`."""
        x, y = self._at(point)
        if lower is not None and upper is not None:
            (_, low), (_, high) = self._at((point[0], lower)), self._at((point[0], upper))
            self._parts.append(f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        self._parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        if label:
            left, at_y = self._free(x, y, len(label) * _LETTER)
            self._labels.append((left, left + len(label) * _LETTER, at_y))
            self._parts.append(f'<text class="label" x="{left:.1f}" y="{at_y:.1f}">{escape(label)}</text>')

    def _free(self, x: float, y: float, width: float) -> XY:
        """Where the label of a dot begins: beside it and inside, the nearest place where there is no other label."""
        sides = (x - 7 - width, x + 7) if x > WIDTH / 2 else (x + 7, x - 7 - width)
        places = [
            (left, y + dy) for step in range(6) for dy in (-6 - _LINE * step, 14 + _LINE * step) for left in sides
        ]
        inside = [one for one in places if one[0] > 0 and one[0] + width < WIDTH and 0 < one[1] < HEIGHT - MARGIN]
        free = (
            one
            for one in inside
            if all(
                one[0] + width < left or right < one[0] or abs(one[1] - at) >= _LINE for left, right, at in self._labels
            )
        )
        return next(free, places[0])

    def svg(self) -> str:
        """The whole element."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(self._title)}</title>'
            f"{''.join(self._parts)}</svg>"
        )

    def _at(self, point: XY) -> XY:
        return (
            MARGIN + (point[0] - self._x[0]) / (self._x[1] - self._x[0]) * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - (point[1] - self._y[0]) / (self._y[1] - self._y[0]) * (HEIGHT - 1.5 * MARGIN),
        )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The values' range and a little more; never empty."""
    low, high = min(values), max(values)
    slack = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - slack, high + slack


def _ticks(low: float, high: float) -> list[str]:
    """Round numbers within a range, some four to nine, as text of the same number of decimals."""
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (5, 2.5, 2, 1) if unit * factor <= rough)
    decimals = max(0, 1 - math.floor(math.log10(step)))
    texts = [f"{i * step:.{decimals}f}" for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    while decimals and all(text.endswith("0") for text in texts):
        texts, decimals = [text[:-1] for text in texts], decimals - 1
    return [text.rstrip(".") for text in texts]


def _frame(x: tuple[float, float], y: tuple[float, float], x_title: str, y_title: str) -> list[str]:
    bottom, right, top = HEIGHT - MARGIN, WIDTH - MARGIN, MARGIN / 2
    parts = [f'<path class="axis" d="M{MARGIN} {top}V{bottom}H{right}"/>']
    for text in _ticks(*x):
        at_x = MARGIN + (float(text) - x[0]) / (x[1] - x[0]) * (right - MARGIN)
        parts.append(
            f'<path class="axis" d="M{at_x:.1f} {bottom}v4"/>'
            f'<text class="tick" x="{at_x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>'
        )
    for text in _ticks(*y):
        at_y = bottom - (float(text) - y[0]) / (y[1] - y[0]) * (bottom - top)
        parts.append(
            f'<path class="axis" d="M{MARGIN - 4} {at_y:.1f}h4"/>'
            f'<text class="tick" x="{MARGIN - 7}" y="{at_y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    centre, middle = (MARGIN + right) / 2, (bottom + top) / 2
    parts.append(
        f'<text class="title" x="{centre}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x_title)}</text>'
        f'<text class="title" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
    return parts
