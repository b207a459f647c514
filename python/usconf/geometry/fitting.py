"""One fit for any picture: a fan where there is one, else a linear probe's frame."""

from __future__ import annotations

from typing import Any

from .. import arrays
from ..margins import looks_like_fan
from .fan import FanFit, fit_fan
from .support import SupportFit, fit_support


def fit(
    image: Any, *, region: Any = None, spacing: Any = None, axes: str | None = None
) -> FanFit | SupportFit:
    """Fit a fan or, where the picture shows none, a linear probe's frame.

    What ``usconf.confidence(image, geometry="auto")`` does.

    Parameters
    ----------
    image, region, spacing, axes
        As for `usconf.fit_fan`.

    Returns
    -------
    FanFit or SupportFit
        ``.geometry``, ``.residual`` in pixels, ``.support`` as bool (H, W), ``.parts``.

    Raises
    ------
    TypeError, ValueError
        If the image is no still or clip, is constant, or the region exceeds it; or if it plainly
        is a fan of which too little is seen to fit it.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> screen = np.zeros((120, 160), np.uint8)
    >>> screen[10:100, 30:130] = np.random.default_rng(0).integers(20, 200, (90, 100))
    >>> usconf.geometry.fit(screen).geometry.kind
    'linear'
    """
    try:
        return fit_fan(image, region=region, spacing=spacing, axes=axes)
    except ValueError:
        # Anything wrong with the arguments themselves is refused here again, in the same words.
        found = fit_support(image, region=region, spacing=spacing, axes=axes)
        if looks_like_fan(arrays.layout(tuple(image.shape), axes).frames(image)):
            raise  # a fan whose borders are lost in the dark is no linear frame
        return found
