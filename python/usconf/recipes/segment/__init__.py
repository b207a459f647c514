"""Segmentation guided by confidence: the experiment of Gonzalez Duque et al., runnable.

*Can ultrasound confidence maps predict sonographers' labeling variability?* (2023). ``run(config,
folder)`` of `usconf.recipes.segment.experiment`, or ``usconf recipe segment``.
"""
