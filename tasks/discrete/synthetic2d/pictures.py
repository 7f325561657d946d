"""Pictures of the plane as PNG bytes, the same bytes for the same input and library versions."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # matplotlib takes half a second to import, which only a run that draws should pay
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_POINTS = 20_000


def scatter_beside_data(samples: Tensor, data: Tensor, half_width: float, title: str = "") -> bytes:
    """Samples of a model beside points of the data, on one scale.

    Arguments:
        samples: Decoded samples (N, 2); the first 20 000 are drawn.
        data: Points of the true density (M, 2), likewise.
        half_width: The square |x|, |y| <= half_width is shown.
        title: A line above both.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure, axes = _panels(2, half_width, title)
        for panel, points, name in zip(axes, (samples, data), ("model", "data"), strict=True):
            shown = points[:_MAX_POINTS].detach().cpu().double().numpy()
            # Marks fade as they become many, so that the density stays visible.
            opacity = float(min(0.8, max(0.08, 1200 / max(1, len(shown)))))
            panel.scatter(shown[:, 0], shown[:, 1], s=3, alpha=opacity, color="#1f4e8c", linewidths=0)
            panel.set_title(f"{name}, {len(shown):,} points", fontsize=9)
        return _png(figure)


def energy_map(log_prob: Tensor, half_width: float, depth: float = 12.0, title: str = "") -> bytes:
    """A log density on the plane, relative to its maximum.

    Arguments:
        log_prob: Values at the centres of a square grid, (G, G) with the column first, or (G^2,) in the order of
            `cells.cell_centres`; up to a constant; -inf is allowed, NaN is drawn grey.
        half_width: The square |x|, |y| <= half_width is covered by the grid.
        depth: Values more than this many nats below the maximum share the darkest colour.
        title: A line above the picture.
    """
    import matplotlib

    values = log_prob.detach().cpu().double()
    side = round(values.numel() ** 0.5)
    values = values.reshape(side, side)
    finite = values[values.isfinite()]
    relative = values - (finite.max() if len(finite) else 0.0)
    shown = torch.where(relative.isnan(), relative, relative.clamp(-depth, 0.0))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure, (panel,) = _panels(1, half_width, title)
        colours = matplotlib.colormaps["viridis"].with_extremes(bad="lightgrey")
        square = (-half_width, half_width, -half_width, half_width)
        image = panel.imshow(shown.T.numpy(), origin="lower", extent=square, cmap=colours, vmin=-depth, vmax=0.0)
        figure.colorbar(image, ax=panel, label="log p - max log p (nats)", shrink=0.85)
        return _png(figure)


def _panels(num: int, half_width: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure, tied to no window or global state, with square panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0 * num + (0.8 if num == 1 else 0.0), 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = [figure.add_subplot(1, num, index + 1) for index in range(num)]
    for panel in panels:
        panel.set_xlim(-half_width, half_width)
        panel.set_ylim(-half_width, half_width)
        panel.set_aspect("equal")
        panel.tick_params(labelsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure, panels


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # the default would name the library's version
    return buffer.getvalue()
