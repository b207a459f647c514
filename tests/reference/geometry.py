"""Beam geometry from first principles, in float64: what the package's shapes are held against.

A fan is (apex_x, apex_z, r_min, r_max, theta_min, theta_max), a quadrilateral its corners A, B, C,
D round from top left; lengths per pixel are (scale_x, scale_z). Formulas differ from the package's
on purpose: complex numbers for fans, areas for quadrilaterals, trial for what a picture shows.
"""

from __future__ import annotations

import numpy as np


def fan_positions(fan, r_start, shape, scale=(1.0, 1.0)):
    """Pixel coordinates x, z of the samples of a fan, (n_samples, n_lines) each."""
    apex_x, apex_z, _, r_max, low, high = fan
    x, z = np.empty(shape), np.empty(shape)
    for i in range(shape[0]):
        radius = r_start + i * (r_max - r_start) / (shape[0] - 1)
        for j in range(shape[1]):
            theta = low + j * (high - low) / (shape[1] - 1)
            # Down is the imaginary axis; positive angles turn from it to the real axis.
            place = radius * 1j * np.exp(-1j * theta)
            x[i, j], z[i, j] = apex_x + place.real, apex_z + place.imag
    return x / scale[0], z / scale[1]


def quad_positions(corners, shape, scale=(1.0, 1.0)):
    """Pixel coordinates x, z of the samples of a quadrilateral, beam by beam."""
    a, b, c, d = np.asarray(corners, np.float64)
    places = np.empty((*shape, 2))
    for j in range(shape[1]):
        u = j / (shape[1] - 1)
        start, end = a + u * (b - a), d + u * (c - d)
        for i in range(shape[0]):
            places[i, j] = start + i / (shape[0] - 1) * (end - start)
    return places[..., 0] / scale[0], places[..., 1] / scale[1]


def fan_coordinates(fan, x, z, scale=(1.0, 1.0)):
    """Radius and angle of pixels."""
    place = (x * scale[0] - fan[0]) + 1j * (z * scale[1] - fan[1])
    return np.abs(place), -np.angle(place / 1j)


def in_fan(fan, x, z, scale=(1.0, 1.0)):
    """Whether pixels lie in a fan; r_min None counts as 0."""
    radius, theta = fan_coordinates(fan, x, z, scale)
    return (radius >= (fan[2] or 0)) & (radius <= fan[3]) & (theta >= fan[4]) & (theta <= fan[5])


def in_quad(corners, x, z, scale=(1.0, 1.0), slack=1e-9):
    """Whether pixels lie in a convex quadrilateral: its four triangles with them fill it."""
    corners = np.asarray(corners, np.float64)
    point = np.stack([x * scale[0], z * scale[1]], axis=-1)[..., None, :]
    first, second = corners - point, np.roll(corners, -1, axis=0) - point
    parts = np.abs(first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]).sum(-1)
    ahead = np.roll(corners, -1, axis=0)
    whole = abs((corners[:, 0] * ahead[:, 1] - corners[:, 1] * ahead[:, 0]).sum())
    return parts <= whole * (1 + slack)


def radii_shown(fan, height, width, scale=(1.0, 1.0), steps=120):
    """Least and greatest radius of a wedge among points between the outer pixels; None if none."""
    x, z = np.meshgrid(np.linspace(0, width - 1, steps + 1), np.linspace(0, height - 1, steps + 1))
    radius, theta = fan_coordinates(fan, x, z, scale)
    inside = (theta >= fan[4]) & (theta <= fan[5])
    if not inside.any():
        return None
    return radius[inside].min(), radius[inside].max()
