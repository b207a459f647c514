"""Confidence-weighted cross entropy and Dice, written as the papers write them.

Gonzalez Duque et al., "Can ultrasound confidence maps predict sonographers' labeling variability?",
eq. 1; Milletari et al., "V-Net" (3DV 2016), for Dice. Arrays are (B, C, *S) and (B, *S), float64.
"""

from __future__ import annotations

import numpy as np


def one_hot(index, classes):
    """(B, *S) indices as (B, C, *S)."""
    shares = np.zeros((index.shape[0], classes, *index.shape[1:]))
    for c in range(classes):
        shares[:, c] = index == c
    return shares


def softmax(logits):
    """Over the channels."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def entropy(logits, shares, confidence):
    """-CM_i sum_c y_ic ln p_ic of every pixel, (B, *S)."""
    return -confidence * (shares * np.log(softmax(logits))).sum(axis=1)


def binary_entropy(logits, share, confidence):
    """Of one logit (B, *S): two classes, the second with probability p = sigmoid(logit)."""
    p = 1 / (1 + np.exp(-logits))
    return -confidence * (share * np.log(p) + (1 - share) * np.log(1 - p))


def dice_loss(p, g, *, background=True, batch=False, power=1, smooth=1e-5):
    """Mean over images and classes of 1 - (2 sum pg + smooth) / (sum p^k + sum g^k + smooth)."""
    losses = []
    for c in range(0 if background else 1, p.shape[1]):
        images = [slice(None)] if batch else range(len(p))
        for b in images:
            found, wanted = p[b, c], g[b, c]
            both = 2 * (found * wanted).sum() + smooth
            losses.append(1 - both / ((found**power).sum() + (wanted**power).sum() + smooth))
    return np.mean(losses)
