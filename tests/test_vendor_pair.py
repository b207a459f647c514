"""A scanner's own pair: beam data and the picture that it made of them (tracked Ultrasonix)."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from scipy import ndimage
from usconf import io

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def pair(data_dir):
    """Beams, averaged over the 8 samples that share a pixel of the picture; the pictures."""
    folder = data_dir / "tracked"
    beams = io.read(folder / "UltrasonixCurvilinearBrightnessData.igs.mha").frames
    scans = io.read(folder / "UltrasonixCurvilinearScanConvertedData.igs.mha").frames
    return ndimage.uniform_filter1d(beams.astype(np.float32), 8, axis=1), scans


def correlations(ours, theirs, mask):
    """Of each frame, inside the fan."""
    return [np.corrcoef(a[mask], b[mask])[0, 1] for a, b in zip(ours, theirs, strict=True)]


def test_the_beams_give_the_picture_through_the_fitted_fan(pair):
    beams, scans = pair
    fan = usconf.fit_fan(scans, axes="thw").geometry
    ours, mask = usconf.to_scan(beams, fan, scans.shape[1:], axes="thw")
    # The fan measured by hand gives 0.943: the scanner post-processes its picture.
    assert min(correlations(ours, scans, mask)) >= 0.93
    reversed_lines, _ = usconf.to_scan(beams[:, :, ::-1], fan, scans.shape[1:], axes="thw")
    assert max(correlations(reversed_lines, scans, mask)) < 0.4


def test_the_picture_gives_the_beams_back(pair):
    beams, scans = pair
    fan = usconf.fit_fan(scans, axes="thw").geometry
    ours, mask = usconf.to_beam(scans, fan, beams.shape[1:], axes="thw")
    assert mask.mean() > 0.9
    assert min(correlations(ours, beams, mask)) > 0.9
