"""Frozen backbones."""
