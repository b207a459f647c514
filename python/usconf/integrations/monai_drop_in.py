"""MONAI's own transform for confidence maps, replaced."""

from __future__ import annotations

from typing import Any

from ..random_walk import CHOICES, check_choices, random_walk
from .monai_bridge import BACKENDS, Transform, like, plain


class UltrasoundConfidenceMapTransform(Transform):
    """MONAI's transform of this name, in its place: same arguments, same map, much faster.

    Parameters
    ----------
    alpha, beta, gamma : float, default 2, 90, 0.05 (MONAI's)
        As in `usconf.random_walk`.
    mode : {"B", "RF"}
        As in `usconf.random_walk`.
    sink_mode : {"all", "mid", "min", "mask"}
        As `sink` in `usconf.random_walk`.
    use_cg : bool, default False
        Whether to take the iterative solver, which is lean. Its map is exact to 1e-6 too.
    cg_tol, cg_maxiter
        MONAI's 1e-6 and 200 only: the solver here goes on until the map is exact.

    Raises
    ------
    TypeError, ValueError
        If a word or number is none of its argument's; when called, if the shapes are none or do
        not match, the mask is missing, or as `usconf.random_walk`.

    Notes
    -----
    Karamalis et al., Medical Image Analysis 16 (2012) 1101-1112. What is other than in MONAI 1.6:
    a MetaTensor stays one (there it becomes an array); a mask is taken with sink_mode="mask" only
    (there it is ignored otherwise); NaN is refused; constant images and sink_mode="min" on frames
    of fewer than ten columns have a map; pictures that are fans draw a warning.

    Examples
    --------
    >>> import torch
    >>> from usconf.integrations.monai import UltrasoundConfidenceMapTransform
    >>> map = UltrasoundConfidenceMapTransform(alpha=1.0, sink_mode="mid")(torch.rand(1, 48, 32))
    >>> map.shape, map.dtype
    (torch.Size([48, 32]), torch.float64)
    """

    backend = BACKENDS

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 90.0,
        gamma: float = 0.05,
        mode: str = "B",
        sink_mode: str = "all",
        use_cg: bool = False,
        cg_tol: float = 1e-6,
        cg_maxiter: int = 200,
    ) -> None:
        check_choices(mode=mode)
        check_choices({"sink_mode": CHOICES["sink"]}, sink_mode=sink_mode)
        for name, value, only in (("cg_tol", cg_tol, 1e-6), ("cg_maxiter", cg_maxiter, 200)):
            if value != only:
                raise ValueError(
                    f"{name} must be left at {only}, got {value}; the iterative solver here goes "
                    "on until the map is exact"
                )
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.mode, self.sink_mode = mode, sink_mode
        self.use_cg, self.cg_tol, self.cg_maxiter = bool(use_cg), cg_tol, cg_maxiter

    def __call__(self, img: Any, mask: Any = None) -> Any:
        """Make the map.

        Parameters
        ----------
        img : numpy.ndarray, torch.Tensor or monai.data.MetaTensor
            (1, H, W), or (1, D, H, W), of which the mean over D is mapped, as MONAI does.
        mask : array, optional
            (1, H, W), nonzero = sink; with sink_mode="mask".

        Returns
        -------
        same kind of array
            (H, W) float64: without channel, as MONAI returns it.
        """
        image = plain("img", img)
        if image.ndim not in (3, 4) or image.shape[0] != 1:
            raise ValueError(
                f"img must be (1, H, W) or (1, D, H, W), got shape {tuple(image.shape)}; see "
                "ConfidenceMap for frames of a volume"
            )
        frame = image[0].double()
        if frame.ndim == 3:
            frame = frame.mean(0)
        sink_mask = None if mask is None else plain("mask", mask)
        if sink_mask is not None and tuple(sink_mask.shape) != (1, *frame.shape):
            raise ValueError(
                f"mask must have shape {(1, *frame.shape)}, got {tuple(sink_mask.shape)}; it is of "
                "the image's size"
            )
        made = random_walk(
            frame,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            mode=self.mode,
            sink=self.sink_mode,
            sink_mask=None if sink_mask is None else sink_mask[0] != 0,
            solver="iterative" if self.use_cg else "auto",
        )
        return like(made, img)
