"""A line chart as an SVG file, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 400, 60
COLORS = ("#1f6f8b", "#c8553d", "#588157", "#7b4b94")


def line_chart(path: Path, title: str, x_name: str, y_name: str, lines: Mapping[str, Sequence[tuple[float, float]]],
               ) -> None:
    """Write points (x, y), joined for each name of `lines`, with axes from the least to the greatest value."""
    points = [p for line in lines.values() for p in line]
    (left, right), (low, high) = ((min(v), max(v)) for v in zip(*points, strict=True))
    right, high = (right if right > left else left + 1), (high if high > low else low + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = MARGIN + (x - left) / (right - left) * (WIDTH - 2 * MARGIN)
        return across, HEIGHT - MARGIN - (y - low) / (high - low) * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="24" text-anchor="middle" font-size="15">{title}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 16}" text-anchor="middle">{x_name}</text>',
        f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2})">{y_name}</text>',
    ]
    for k in range(5):
        y = low + (high - low) * k / 4
        at = place(left, y)[1]
        parts.append(f'<path d="M{MARGIN} {at:.1f}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{at + 4:.1f}" text-anchor="end">{y:.3g}</text>')
    for x in sorted({p[0] for p in points}):
        at = place(x, low)[0]
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{x:g}</text>')
    for (name, line), color in zip(lines.items(), COLORS * len(lines), strict=False):
        drawn = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(*p) for p in line))
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}"/>' for a, b in (place(*p) for p in line)]
        a, b = place(*line[-1])
        parts.append(f'<text x="{a + 6:.1f}" y="{b - 6:.1f}" fill="{color}" text-anchor="end">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
