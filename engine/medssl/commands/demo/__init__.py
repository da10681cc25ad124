"""The whole road on one scan, with the time of each step."""

from medssl.commands.demo.road import DemoResult, run

__all__ = ["DemoResult", "run"]
