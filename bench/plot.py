"""The plot: a panel of bars for each metric, as one SVG. Pure; written by hand, for it is rectangles and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from bench.judge import LIMITS, REFERENCE, Figure
from bench.metrics import METRICS, Metric
from bench.report import heading

_WIDTH = 900
_LABEL = 210
_BARS = 480
_ROW = 24
_TITLE = 40
_MARGIN = 20
_OURS, _THEIRS, _LIMIT, _INK, _FAINT = "#0b6e4f", "#7a8aa0", "#d5d9e0", "#1c2430", "#5b6675"


def svg(
    figures: Sequence[Figure],
    titles: Mapping[str, str],
    caption: str,
    metrics: Sequence[Metric] = METRICS,
) -> str:
    """Return the plot of a run: bars are medians, lines reach from the lowest to the highest round.

    Args:
        figures: Of one run.
        titles: What peers are called, by name.
        caption: A line that says which run it is.
        metrics: A panel for each.
    """
    y = 2 * _MARGIN + 4
    parts = [_text(_MARGIN, _MARGIN + 8, caption, size=14, weight="bold")]
    for metric in metrics:
        own = [figure for figure in figures if figure.metric == metric]
        if own:
            parts += _panel(metric, own, titles, y)
            y += _TITLE + _ROW * len(own) + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}" '
            'font-family="system-ui, sans-serif" font-size="13">',
            f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(metric: Metric, figures: Sequence[Figure], titles: Mapping[str, str], top: int) -> list[str]:
    highest = max((max(figure.values) for figure in figures if _is_shown(figure)), default=0.0)
    parts = [_text(_MARGIN, top + 22, heading(metric), weight="bold")]
    for row, figure in enumerate(figures):
        y = top + _TITLE + row * _ROW
        parts.append(_text(_MARGIN, y + 13, titles[figure.peer]))
        if not _is_shown(figure):
            least = figure.ratio_to(REFERENCE)
            bound = "" if least is None else f"; at least {least.value:.2f} x HAProxy"
            parts.append(_text(_LABEL + 4, y + 13, (figure.refused or "failed") + bound, ink=_FAINT))
            continue
        scale = _BARS / highest if highest > 0 else 0.0
        parts.append(_bar(y, figure, scale))
        by = figure.ratio_to(REFERENCE)
        ratio = "" if by is None else f"  ({by.value:.2f} x HAProxy)"
        end = _LABEL + max(figure.values) * scale
        parts.append(_text(end + 8, y + 13, metric.show(figure.median) + ratio))
    return parts


def _bar(y: int, figure: Figure, scale: float) -> str:
    fill = _OURS if figure.peer.startswith("marchproxy") else _LIMIT if figure.peer in LIMITS else _THEIRS
    low, high = (_LABEL + edge(figure.values) * scale for edge in (min, max))
    return (
        f'<rect x="{_LABEL}" y="{y}" width="{max(0.0, figure.median) * scale:.1f}" height="17" fill="{fill}"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + 8.5}" y2="{y + 8.5}" stroke="{_INK}" stroke-width="1.5"/>'
    )


def _is_shown(figure: Figure) -> bool:
    return bool(figure.values) and figure.refused is None


def _text(x: float, y: float, text: str, *, size: int = 13, weight: str = "normal", ink: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{ink}">{escape(text)}</text>'
