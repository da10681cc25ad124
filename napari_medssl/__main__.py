"""``python -m napari_medssl --project DIR``: the viewer on a project, as ``medssl demo`` leaves it.

DIR is a project folder (`medssl.store.project`): its first scan is shown with its scribbles and the
probe's proposal. Results are taken from DIR or the folder above it, where they are there, under the
names that the commands give them:

- ``prototypes.nii.gz``: prototype map on the scan's grid
- ``hits.json``: a query and its ranked hits
- ``probe.nii.gz``: the probe's proposal, where the project holds none
- ``segmentation.nii.gz``: what the trained network says
- ``detections.json``: boxes, and which detector found them
- ``index/``: an index to search in

With ``--screenshot FILE`` the window's picture is saved and the viewer closes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medssl.errors import InputError

WINDOW = (1400, 900)
LAYOUTS = 8


def main(arguments: list[str] | None = None) -> int:
    """Open the viewer; exit code 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m napari_medssl", description="The viewer on a project.")
    parser.add_argument("--project", type=Path, required=True, metavar="DIR", help="project folder")
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help="save a picture and close")
    given = parser.parse_args(arguments)
    try:
        show(given.project, given.screenshot)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def show(project: Path, screenshot: Path | None = None) -> None:
    """Open the viewer on a project folder.

    Args:
        project: project folder.
        screenshot: file for a picture of the window; the viewer then closes.

    Raises:
        InputError: no project, or its scan cannot be read.
    """
    from medssl.store.project import Project

    volumes = Project.open(project).volumes
    if not volumes:
        raise InputError(f"{project}: the project has no scan yet; open one in the MedSSL widget")
    import napari
    from napari.qt import get_qapp

    from napari_medssl.plugin import Plugin
    from napari_medssl.restored import restore
    from napari_medssl.workers import Workers

    viewer = napari.Viewer(title=f"MedSSL - {project.resolve().parent.name}")
    plugin = Plugin(viewer, project=project.resolve(), workers=Workers(is_synchronous=screenshot is not None))
    viewer.window.add_dock_widget(plugin.widget, name="MedSSL", area="right")
    viewer.window.resize(*WINDOW)
    restore(plugin, volumes[0])
    viewer.reset_view()
    if screenshot is None:
        napari.run()
        return
    screenshot.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(LAYOUTS):  # the dock has no size before, and its panels get theirs one after the other
        get_qapp().processEvents()
    viewer.screenshot(str(screenshot), canvas_only=False, flash=False)
    plugin.close()
    viewer.close()


if __name__ == "__main__":
    sys.exit(main())
