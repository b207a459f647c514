"""L-FUSION: Laplace and dropout uncertainty of segmentation on a frozen encoder, runnable.

Mueller et al., *L-FUSION: Laplacian Fetal Ultrasound Segmentation & Uncertainty Estimation*
(2025). ``run(config, folder)`` of `usconf.recipes.lfusion.experiment`, or ``usconf recipe
lfusion``.
"""
