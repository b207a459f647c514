"""What one run of the experiment is: every setting, its default and its check."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..settings import flag, integer, number, one_of, setting, text

# Of `data` given and size not: what the paper resizes to for its U-Nets.
FOLDER_SIZE = 256


@dataclass(frozen=True)
class Config:
    """All settings; keys of the YAML file and of ``--set``.

    Attributes
    ----------
    data : str or None
        Folder in the layout of HC18; None makes heads.
    size : int or None
        Rows and columns of the pictures. None: 64 for made heads, 256 (the paper's) for a folder.
    train, validation, test, ood : int
        Made pictures of each split.
    validation_share, test_share : float
        Shares of a folder's fetuses.
    elastic : float
        Largest displacement of an unusual skull, as a share of the head's smaller semi-axis.
    deformation : {"pixels", "anatomy"}
        What is deformed: the finished picture, as in the paper (ordinary ones are resampled too),
        or a made skull before it is imaged. The latter leaves speckle as it is and is far harder
        to find; made heads only.
    seed : int
        Of data, networks and draws.
    encoder : str
        "made": a small one, trained here on made heads without labels. "timm:NAME" or
        "torchvision:NAME": that architecture. "module:function": called with images; with
        parentheses, "module:function()", it is called once and returns what is called with images.
    encoder_weights : str or None
        File of a state dict (.pt, .pth, .safetensors); None: random weights, or made ones.
    encoder_layer : str or None
        timm: number of the feature stage, default the last; torchvision: name of the module.
    encoder_channels : int
        Channels of its input; gray pictures are repeated.
    encoder_size : int or None
        Rows and columns of its input; None: as `size`. The paper's is 224.
    encoder_mean, encoder_std : float
        What it wants to be taken off pictures in [0, 1], and what they are divided by.
    encoder_frames, encoder_steps : int
        Made pictures and steps that the made encoder is trained on.
    width, levels : int
        Channels of the U-Nets at full resolution, and how often these are halved.
    hidden : int
        Channels of the heads on the encoder's features.
    rank : int
        Of the stochastic heads; the paper's is 10.
    dropout : float
        Share of channels that is dropped.
    steps, batch, learning_rate, weight_decay, patience
        Training of each network: AdamW, cosine; ends after `patience` checks without a better
        validation loss. There are 12 checks.
    draws : int
        Posterior draws n; the paper uses 20, and 50 for its calibration.
    inner : int
        Samples of a draw's Gaussian over logits that its mean probability is taken from.
    patch : int
        Side of the patches whose largest sum is a score.
    clips : bool
        Whether clips (Conv3d heads) are looked at too.
    clip_length, clip_size, clip_train, clip_validation, clip_test
    clip_steps, clip_batch, clip_width
        The same for clips; `clip_test` ordinary ones and as many with unusual skulls. No more than
        the splits hold.
    device : str
        "auto": CUDA when there.
    threads : int or None
        Of torch; None leaves them.
    """

    data: str | None = setting(None, text().or_none())
    size: int | None = setting(None, integer(24).or_none())
    train: int = setting(240, integer(2))
    validation: int = setting(40, integer(1))
    test: int = setting(100, integer(2))
    ood: int = setting(100, integer(2))
    validation_share: float = setting(0.1, number(0, 0.5))
    test_share: float = setting(0.2, number(0, 0.5))
    elastic: float = setting(0.6, number(0.01, 1))
    deformation: str = setting("pixels", one_of("pixels", "anatomy"))
    seed: int = setting(0, integer(0))
    encoder: str = setting("made", text())
    encoder_weights: str | None = setting(None, text().or_none())
    encoder_layer: str | None = setting(None, text().or_none())
    encoder_channels: int = setting(1, integer(1))
    encoder_size: int | None = setting(None, integer(8).or_none())
    encoder_mean: float = setting(0.0, number(-1e6, 1e6))
    encoder_std: float = setting(1.0, number(1e-6, 1e6))
    encoder_frames: int = setting(800, integer(1))
    encoder_steps: int = setting(900, integer(1))
    width: int = setting(8, integer(1))
    levels: int = setting(3, integer(1))
    hidden: int = setting(32, integer(1))
    rank: int = setting(10, integer(1))
    dropout: float = setting(0.1, number(0.001, 0.9))
    steps: int = setting(220, integer(1))
    batch: int = setting(12, integer(1))
    learning_rate: float = setting(4e-3, number(1e-9, 10))
    weight_decay: float = setting(1e-4, number(0, 10))
    patience: int = setting(4, integer(1))
    draws: int = setting(20, integer(2))
    inner: int = setting(20, integer(1))
    patch: int = setting(10, integer(1))
    clips: bool = setting(True, flag())
    clip_length: int = setting(16, integer(2))
    clip_size: int = setting(32, integer(24))
    clip_train: int = setting(48, integer(1))
    clip_validation: int = setting(8, integer(1))
    clip_test: int = setting(20, integer(2))
    clip_steps: int = setting(50, integer(1))
    clip_batch: int = setting(4, integer(1))
    clip_width: int = setting(8, integer(1))
    device: str = setting("auto", text())
    threads: int | None = setting(None, integer(1).or_none())

    @property
    def side(self) -> int:
        """Rows and columns of the pictures, `size` or its default."""
        if self.size is not None:
            return self.size
        return 64 if self.data is None else FOLDER_SIZE

    def for_clips(self) -> Config:
        """The same experiment with the settings of clips in the places of the pictures'."""
        return replace(
            self,
            size=self.clip_size,
            steps=self.clip_steps,
            batch=self.clip_batch,
            width=self.clip_width,
        )


# May differ between a run and its resumption: they change no figure.
FREE_KEYS = frozenset({"threads", "device"})

# --quick: whether everything works.
QUICK: dict[str, Any] = {
    "size": 32,
    "train": 32,
    "validation": 8,
    "test": 16,
    "ood": 16,
    "encoder_frames": 32,
    "encoder_steps": 30,
    "width": 8,
    "levels": 2,
    "hidden": 8,
    "rank": 4,
    "steps": 30,
    "draws": 6,
    "inner": 4,
    "clip_length": 4,
    "clip_size": 24,
    "clip_train": 8,
    "clip_validation": 4,
    "clip_test": 8,
    "clip_steps": 10,
    "clip_width": 8,
}
