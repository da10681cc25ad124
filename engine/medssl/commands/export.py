"""Images and masks in the formats of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.config.export import ExportConfig
from medssl.data.labelled import whole_numbers
from medssl.errors import InputError
from medssl.io import read_volume, write_volume
from medssl.io.class_table import ClassRow, measure_classes, write_class_table
from medssl.io.formats import VOLUMES, WRITABLE_PICTURES, image_suffix
from medssl.io.outputs import check_dimensions, check_place
from medssl.jobs.progress import Progress, Steps

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace
    from medssl.volume import Volume

_OF_MASKS = (".dcm", ".csv")


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Args:
        files: in the order asked for.
        classes: what the mask holds; empty for an image without a table or a SEG.
        notes: what was chosen, inferred or repaired on reading the input.
    """

    files: tuple[Path, ...]
    classes: tuple[ClassRow, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "files": [str(file) for file in self.files],
            "classes": [row.to_json() for row in self.classes],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """For the terminal."""
        sizes = [
            f"{row.value} {row.name}: {row.voxels} voxels"
            + ("" if row.size is None else f", {row.size:.4g} {row.unit}")
            for row in self.classes
        ]
        return "\n".join([*map(str, self.files), *sizes, *(f"note: {note}" for note in self.notes)])


def run(config: ExportConfig, workspace: Workspace | None = None) -> Steps[ExportResult]:
    """Read once, write every format asked for.

    Args:
        config: input and files to write.
        workspace: not needed by this command.

    Raises:
        InputError: an ending that cannot be written, a mask format for an image, or a DICOM SEG without its
            source; nothing is written then.
    """
    for path in config.out:
        _check_ending(path, config.source)
        read = [given for given in (config.input, config.source) if given is not None]
        # a new file may lie beside the slices it belongs to
        check_place(path, *(given for given in read if path.exists() or not given.is_dir()))
    yield Progress(0, len(config.out), "exporting", message=f"reading {config.input}")
    volume = read_volume(config.input, config.series, config.frame)
    if any(path.suffix.lower() in _OF_MASKS for path in config.out):
        volume = volume.with_array(whole_numbers(volume.array, str(config.input)))
    classes = yield from export_steps(volume, config.out, config.classes, config.source, config.source_series)
    return ExportResult(config.out, classes, volume.notes)


def export_steps(
    volume: Volume,
    out: Sequence[Path],
    names: Mapping[int, str],
    source: Path | None = None,
    series: str | None = None,
) -> Steps[tuple[ClassRow, ...]]:
    """Write a volume in every format asked for; its classes where one of these is a format of masks.

    Args:
        volume: image, or mask of whole numbers from 0.
        out: files; the ending chooses the format.
        names: of the mask's values.
        source: DICOM series that a mask was drawn on: folder or file.
        series: uid of the series, where the folder holds several.

    Raises:
        InputError: see `run`.
    """
    for path in out:
        _check_ending(path, source)
        check_dimensions(path, volume)
    is_mask = any(path.suffix.lower() in _OF_MASKS for path in out)
    classes = measure_classes(volume, names) if is_mask else ()
    for number, path in enumerate(out, start=1):
        if path.suffix.lower() == ".csv":
            write_class_table(classes, path)
        elif path.suffix.lower() == ".dcm" and source is not None:
            from medssl.io.dicom_seg import write_segmentation

            write_segmentation(volume, {row.value: row.name for row in classes}, source, path, series=series)
        else:
            write_volume(volume, path)
        yield Progress(number, len(out), "exporting", message=f"wrote {path}")
    return classes


def _check_ending(path: Path, source: Path | None) -> None:
    ending = path.suffix.lower()
    if ending == ".dcm" and (source is None or (source.is_file() and image_suffix(source))):
        raise InputError(
            f"{path}: a DICOM SEG belongs to a patient and a study, and no DICOM series that the mask was "
            "drawn on is given (--source of medssl export); save it as .nii.gz, .nrrd or .mha"
        )
    if ending not in _OF_MASKS and image_suffix(path) not in (*VOLUMES, *WRITABLE_PICTURES):
        known = ", ".join((*VOLUMES, *WRITABLE_PICTURES, *_OF_MASKS))
        raise InputError(f"{path}: cannot be written; end the name with one of {known}")
