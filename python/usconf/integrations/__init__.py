"""Bridges to other software; each needs that software, `usconf` itself needs none of them."""
