"""Implicit models: items can be drawn, and have no density."""

from zoo.implicit.gan import GAN

__all__ = ["GAN"]
