"""MONAI's networks by the names of the paper's table, in 2-D and 3-D."""

from __future__ import annotations

from typing import Any

NETWORKS = ("unet", "attention_unet", "unetr")
# Sides must be multiples of these: three halvings; UNETR's patches of 16.
FACTORS = {"unet": 8, "attention_unet": 8, "unetr": 16}


def build(
    network: str,
    channels: int,
    classes: int,
    shape: tuple[int, ...],
    *,
    width: int,
    residual_units: int,
    dropout: float,
) -> Any:
    """A `torch.nn.Module` from ``(B, channels, *shape)`` to logits ``(B, classes, *shape)``.

    Parameters
    ----------
    network : {"unet", "attention_unet", "unetr"}
        MONAI's UNet, AttentionUnet, UNETR.
    channels, classes : int
        Planes in, planes out.
    shape : tuple of int
        ``(H, W)`` or ``(D, H, W)``; multiples of `FACTORS`.
    width : int
        Channels of the first level, doubled at each of three halvings; UNETR: its feature size,
        with a hidden size of 12 times that (MONAI's defaults are 16 and 768).
    residual_units : int
        UNet only.
    dropout : float
        Probability, in all layers that have it.

    Raises
    ------
    ImportError
        If MONAI is not installed.
    """
    try:
        from monai.networks.nets import UNETR, AttentionUnet, UNet
    except ImportError as problem:
        raise ImportError(
            'this recipe needs MONAI; run: pip install "usconf[recipes]"'
        ) from problem
    levels = [width * 2**level for level in range(4)]
    given: dict[str, Any] = {"in_channels": channels, "out_channels": classes}
    given["spatial_dims"] = len(shape)
    if network == "unet":
        return UNet(
            **given,
            channels=levels,
            strides=(2, 2, 2),
            num_res_units=residual_units,
            dropout=dropout,
        )
    if network == "attention_unet":
        return AttentionUnet(**given, channels=levels, strides=(2, 2, 2), dropout=dropout)
    return UNETR(
        **given,
        img_size=shape,
        feature_size=width,
        hidden_size=12 * width,
        mlp_dim=48 * width,
        num_heads=12,
        dropout_rate=dropout,
    )
