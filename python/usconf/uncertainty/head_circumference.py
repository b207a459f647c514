"""Circumference of a head from its mask: an ellipse through the outline."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, ndimage
from torch import Tensor


class Ellipse(NamedTuple):
    """An ellipse in millimetres from the middle of the first pixel.

    Attributes
    ----------
    center_mm : tuple of float
        (row, column).
    semi_axes_mm : tuple of float
        (major, minor): half of the lengths.
    angle_rad : float
        From the column axis to the major axis, towards growing rows; in (-pi/2, pi/2].
    """

    center_mm: tuple[float, float]
    semi_axes_mm: tuple[float, float]
    angle_rad: float


class HeadCircumference(NamedTuple):
    """A circumference in millimetres and the ellipse it is that of."""

    circumference_mm: float
    ellipse: Ellipse


def head_circumference(mask: Any, spacing_mm: float | tuple[float, float]) -> HeadCircumference:
    """The circumference of the ellipse through the outline of a mask's largest object.

    Parameters
    ----------
    mask : array or tensor
        (H, W); not 0 is head. Holes are filled first, so that a drawn outline does as well.
    spacing_mm : float or (float, float)
        Size of a pixel, or (row, column) sizes.

    Returns
    -------
    HeadCircumference
        circumference_mm and the ellipse.

    Raises
    ------
    TypeError, ValueError
        When the mask is empty, not two-dimensional, or no ellipse goes through its outline.

    Notes
    -----
    Outline points are the middles of the edges between a pixel inside and its neighbour outside
    (pixel centres would make the head half a pixel too small all round); where the head leaves the
    picture there are none. The fit is the direct least-squares one of Halir and Flusser (1998),
    the circumference Ramanujan's second formula (1914), exact to 1e-4 for any ellipse.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.uncertainty import head_circumference
    >>> row, column = np.indices((200, 240))
    >>> mask = ((row - 100) / 60) ** 2 + ((column - 120) / 80) ** 2 < 1
    >>> round(head_circumference(mask, 0.5).circumference_mm)
    221
    """
    row_mm, column_mm = _spacing(spacing_mm)
    pixels = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if pixels.ndim != 2:
        raise ValueError(
            f"mask must be (H, W), got {tuple(pixels.shape)}; take one image and one class of it"
        )
    rows, columns = _outline(_largest(pixels != 0))
    ellipse = fit_ellipse(rows * row_mm, columns * column_mm)
    return HeadCircumference(perimeter(*ellipse.semi_axes_mm), ellipse)


def perimeter(major: float, minor: float) -> float:
    """Of an ellipse with these semi-axes, by Ramanujan's second formula."""
    h = ((major - minor) / (major + minor)) ** 2
    return math.pi * (major + minor) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))


def _spacing(spacing_mm: float | tuple[float, float]) -> tuple[float, float]:
    pair = np.asarray(spacing_mm, np.float64)
    if pair.shape not in ((), (2,)) or not (np.isfinite(pair) & (pair > 0)).all():
        raise ValueError(
            f"spacing_mm must be one or two (row, column) lengths above 0, got {spacing_mm!r}"
        )
    row, column = np.broadcast_to(pair, 2)
    return float(row), float(column)


def _largest(inside: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(ndimage.binary_fill_holes(inside), np.ones((3, 3)))
    if count == 0:
        raise ValueError("mask must hold a head, got an empty mask; count the image as missed")
    largest: np.ndarray = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    return largest


def _outline(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, in pixels, of the middles of edges between inside and outside."""
    below = np.nonzero(inside[1:] != inside[:-1])
    beside = np.nonzero(inside[:, 1:] != inside[:, :-1])
    rows = np.concatenate((below[0] + 0.5, beside[0]))
    columns = np.concatenate((below[1], beside[1] + 0.5))
    return rows, columns


def fit_ellipse(rows: np.ndarray, columns: np.ndarray) -> Ellipse:
    """The direct least-squares ellipse through points."""
    refused = ValueError(
        f"mask must have an outline that an ellipse fits, got {rows.size} points of it; "
        "is the head cut off, or a line?"
    )
    if rows.size < 6:
        raise refused
    middle = np.array((rows.mean(), columns.mean()))
    scale = max(np.ptp(rows), np.ptp(columns)) / 2
    y, x = (rows - middle[0]) / scale, (columns - middle[1]) / scale
    quadratic = np.stack((x * x, x * y, y * y), 1)
    linear = np.stack((x, y, np.ones_like(x)), 1)
    try:
        # Halir and Flusser, eq. 24-28: eliminate the linear part, then a 3 x 3 eigenproblem.
        onto = -np.linalg.solve(linear.T @ linear, linear.T @ quadratic)
        reduced = quadratic.T @ (quadratic + linear @ onto)
        constraint = np.array([[0.0, 0.0, 0.5], [0.0, -1.0, 0.0], [0.5, 0.0, 0.0]])
        _, vectors = linalg.eig(constraint @ reduced)
    except np.linalg.LinAlgError:
        raise refused from None
    vectors = np.real(vectors)
    good = 4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 0
    if good.sum() != 1:
        raise refused
    curve = vectors[:, np.argmax(good)]
    return _from_conic(curve, onto @ curve, middle, float(scale), refused)


def _from_conic(
    curve: np.ndarray, rest: np.ndarray, middle: np.ndarray, scale: float, refused: ValueError
) -> Ellipse:
    """Centre, axes and angle of a x^2 + b xy + c y^2 + d x + e y + f = 0."""
    a, b, c = curve
    d, e, f = rest
    form = np.array(((a, b / 2), (b / 2, c)))
    centre = np.linalg.solve(2 * form, (-d, -e))
    level = -(f + (d * centre[0] + e * centre[1]) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = level / np.linalg.eigvalsh(form)
    if not (np.isfinite(squares) & (squares > 0)).all():
        raise refused
    _, directions = np.linalg.eigh(form * np.sign(level))
    x, y = directions[:, 0]  # of the smaller eigenvalue: the major axis
    angle = math.atan2(y, x)
    angle -= math.pi * math.ceil(angle / math.pi - 0.5)
    major, minor = np.sqrt(np.sort(squares)[::-1]) * scale
    center = (float(middle[0] + scale * centre[1]), float(middle[1] + scale * centre[0]))
    return Ellipse(center, (float(major), float(minor)), angle)
