"""Bundled weights, their model cards and the registry: installed as ``medssl.bundled_weights``."""
