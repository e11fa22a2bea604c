"""The plot: bars of packets a second by point, as one SVG. Pure; written by hand, for it is rectangles and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from bench.packets.figures import BARE_DROP, ENGINES, Figure, ratio

_WIDTH, _LABEL, _BARS, _ROW, _TITLE, _MARGIN = 900, 230, 420, 24, 36, 20
_OURS, _THEIRS, _INK, _FAINT = "#0b6e4f", "#7a8aa0", "#1c2430", "#5b6675"


def svg(figures: Sequence[Figure], titles: Mapping[str, str], caption: str) -> str:
    """Return the plot of a run: all bars of what comes through to one scale, those of what is dropped to another.

    Args:
        figures: Of one run.
        titles: What carriers are called, by name.
        caption: A line that says which run it is.
    """
    scales = {drops: _scale(figures, drops=drops) for drops in (False, True)}
    parts = [_text(_MARGIN, _MARGIN + 8, caption, size=14, weight="bold")]
    y = 2 * _MARGIN
    for point in dict.fromkeys(figure.point for figure in figures):
        parts.append(_text(_MARGIN, y + 20, f"{point}, Mpackets/s on one core", weight="bold"))
        y += _TITLE
        for figure in (one for one in figures if one.point == point):
            parts += _row(figure, titles[figure.carrier], figures, scales[bool(point.prefixes)], y)
            y += _ROW
        y += _MARGIN // 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}" '
            'font-family="system-ui, sans-serif">',
            f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _scale(figures: Sequence[Figure], *, drops: bool) -> float:
    """Return how long a bar is for one packet a second."""
    rates = [figure.rate for figure in figures if figure.stands and bool(figure.point.prefixes) is drops]
    return _BARS / max(rates, default=1.0)


def _row(figure: Figure, title: str, among: Sequence[Figure], scale: float, y: int) -> list[str]:
    label = _text(_MARGIN, y + 13, title)
    if not figure.stands:
        return [label, _text(_LABEL + 4, y + 13, figure.refused or "failed", ink=_FAINT)]
    length = figure.rate * scale
    fill = _OURS if figure.carrier in ENGINES else _THEIRS
    reference, name = (BARE_DROP, "bare XDP_DROP") if figure.point.prefixes else ("nftables", "nftables")
    compared = ratio(figure, reference, among)
    beside = "" if compared is None else f"  ({compared.value:.2f} x {name})"
    return [
        label,
        f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="17" fill="{fill}"/>',
        _text(_LABEL + length + 8, y + 13, f"{figure.rate / 1e6:.2f}{beside}"),
    ]


def _text(x: float, y: int, text: str, *, size: int = 13, weight: str = "normal", ink: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{ink}">{escape(text)}</text>'
