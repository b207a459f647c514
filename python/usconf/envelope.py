"""The envelope of radio-frequency scanlines."""

from __future__ import annotations

from typing import Any

from . import arrays


def magnitude(signal: Any, axis: int) -> Any:
    """Magnitude of the analytic signal of real float arrays along an axis. Differentiable.

    The negative frequencies are dropped and the positive ones doubled, as scipy.signal.hilbert
    does; the three libraries share the names of their transforms.
    """
    xp = arrays.namespace(signal)
    count = signal.shape[axis]
    spectrum = xp.fft.fft(signal, axis=axis)
    where = {"device": signal.device} if arrays.kind(signal) == "torch" else {}
    index = xp.arange(count, **where)
    positive, both = index < (count + 1) // 2, (index == 0) | (2 * index == count)
    gain = xp.where(both, 1.0, xp.where(positive, 2.0, 0.0))
    shape = [1] * signal.ndim
    shape[axis] = count
    return xp.abs(xp.fft.ifft(spectrum * gain.reshape(shape), axis=axis))


def envelope(rf: Any, axis: int = -2) -> Any:
    """Envelope of radio-frequency (RF) scanlines: magnitude of the analytic signal.

    The mean of every scanline is removed first. Use it for RF data with an offset, and hand the
    envelope to `usconf.random_walk` with ``mode="B"``: ``mode="RF"`` keeps the published
    behaviour, which scales first and keeps the offset.

    Parameters
    ----------
    rf : numpy.ndarray, torch.Tensor or cupy.ndarray
        Scanlines of any shape; uint8, uint16, int16, float16, float32 or float64.
    axis : int, default -2
        The axis of depth; the default suits (..., depth, scanline).

    Returns
    -------
    same kind of array
        Same shape, nonnegative, in the unit of `rf`; float64 for float64, else float32
        (computed in float64). Torch gradients flow through.

    Raises
    ------
    TypeError
        If `rf` is no array, or complex, or of another dtype.
    ValueError
        If `axis` is out of range or empty, or `rf` holds NaN or Inf.

    Notes
    -----
    scipy.signal.hilbert's definition: with a scanline of even length the Nyquist frequency is
    kept once.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> depth = np.arange(200)[:, None]
    >>> pulse = np.exp(-((depth - 100.0) / 20.0) ** 2)
    >>> rf = 5.0 + pulse * np.cos(1.5 * depth)
    >>> bool(abs(usconf.envelope(rf) - pulse).max() < 0.05)
    True
    """
    arrays.check_pixels(rf, "rf")
    if not isinstance(axis, int) or not -rf.ndim <= axis < rf.ndim:
        raise ValueError(
            f"axis must be one of the {rf.ndim} axes of rf, got {axis!r}; it names the depth"
        )
    if rf.shape[axis] == 0:
        raise ValueError(f"rf must have samples along axis {axis}, got shape {tuple(rf.shape)}")
    xp = arrays.namespace(rf)
    if arrays.is_floating(rf) and not bool(xp.isfinite(rf).all()):
        raise ValueError("rf must be finite, got NaN or Inf; replace them before")
    lines = arrays.cast(rf, "float64")
    lines = lines - lines.mean(axis=axis, keepdims=True)
    return arrays.cast(magnitude(lines, axis), arrays.result_dtype(rf, None))
