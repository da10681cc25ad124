"""Where to save a mask, and in which format."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

FORMATS = {
    "NIfTI (*.nii.gz)": ".nii.gz",
    "NRRD (*.nrrd)": ".nrrd",
    "MetaImage (*.mha)": ".mha",
    "DICOM SEG, for a scan that is DICOM (*.dcm)": ".dcm",
    "Table of volumes (*.csv)": ".csv",
}
"""Name filters of the dialog, and the ending that each stands for."""

_ENDINGS = (*FORMATS.values(), ".nii", ".gz")


class SaveDialog(QFileDialog):
    """Asks for a file name; choosing a format changes its ending, so that an existing file is asked about.

    Args:
        what: is saved, also the name that is proposed.
        parent: Qt parent.
    """

    def __init__(self, what: str, parent: QWidget | None = None) -> None:
        super().__init__(parent, f"Save the {what}")
        self.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        self.setNameFilters(list(FORMATS))
        self.filterSelected.connect(self._on_format)
        self.selectFile(what + ".nii.gz")
        self._on_format(self.selectedNameFilter())

    def ask(self) -> str:
        """The chosen path; empty where the user changed their mind."""
        accepted = self.exec() == QFileDialog.DialogCode.Accepted
        return self.selectedFiles()[0] if accepted else ""

    def _on_format(self, chosen: str) -> None:
        ending = FORMATS[chosen]
        self.setDefaultSuffix(ending[1:])
        name = Path(self.selectedFiles()[0]).name
        while known := next((known for known in _ENDINGS if name.endswith(known)), ""):
            name = name.removesuffix(known)  # several: Qt exchanges the last part of .nii.gz by itself
        self.selectFile(name + ending)
