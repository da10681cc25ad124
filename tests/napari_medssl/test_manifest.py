"""The manifest is valid, complete, and every command in it exists."""

from __future__ import annotations

from importlib import import_module

import pytest

npe2 = pytest.importorskip("npe2")


@pytest.fixture(scope="module")
def manifest():
    return npe2.PluginManifest.from_distribution("napari-medssl")


def test_every_command_can_be_imported(manifest) -> None:
    manifest.validate_imports()
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(import_module(module), name))


def test_the_names_that_others_rely_on(manifest) -> None:
    assert manifest.name == "napari-medssl"
    assert manifest.display_name == "MedSSL"
    widgets = [(w.command, w.display_name) for w in manifest.contributions.widgets]
    assert widgets == [("napari-medssl.open", "MedSSL")]
    assert {s.key for s in manifest.contributions.sample_data} == {"average-brain", "ct-phantom"}


def test_readers_and_writers_cover_the_formats(manifest) -> None:
    reader = manifest.contributions.readers[0]
    assert reader.accepts_directories
    assert {"*.nii.gz", "*.nrrd", "*.mha", "*.dcm"} <= set(reader.filename_patterns)
    assert "*.gz" not in reader.filename_patterns  # every compressed file of the world
    kinds = {w.layer_types[0]: set(w.filename_extensions) for w in manifest.contributions.writers}
    assert set(kinds) == {"labels", "image"}
    assert all({".nii.gz", ".nrrd", ".mha"} <= suffixes for suffixes in kinds.values())


def test_preferences_have_defaults(manifest) -> None:
    from napari_medssl.plugin import preferences

    values = preferences()
    assert values == {"folder": "~/medssl-project", "encoder": "default", "device": "auto"}
    assert set(manifest.contributions.configurations) == {"project", "engine"}
