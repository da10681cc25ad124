"""The package list: two source roots and the weights as a data package."""

from setuptools import find_packages, setup

engine = find_packages("engine", include=["medssl*"])
plugin = find_packages(".", include=["napari_medssl*"])
weights = ["medssl.bundled_weights"] + [f"medssl.bundled_weights.{name}" for name in find_packages("weights")]
setup(packages=engine + plugin + weights)
