"""Which scans, with what labels: the data table (CSV) or a folder of scans, as rows."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import InputError

COLUMNS = ("image", "label", "boxes", "class", "subject", "modality", "task", "group", "split")
SPLITS = ("", "train", "val", "test", "unlabelled", "reader")
TRAINING_SPLITS = ("train", "unlabelled", "")
"""Splits that pre-training may see."""

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
_LABEL_NAMES = ("label", "labels", "seg", "segmentation", "mask")


@dataclass(frozen=True)
class Row:
    """One image of a data table.

    Args:
        image: file, or folder of one DICOM series.
        label: mask on the image's grid.
        boxes: CSV of boxes.
        classes: class names, several where the task is multi-label.
        subject: images of one subject never straddle a split.
        modality: "CT", "MR", ...; empty: taken from the file.
        task: what was imaged and why ("brain-mr-t1"), for hierarchical methods.
        group: family of tasks that are balanced in training.
        split: one of `SPLITS`.
        name: path as written in the table; identifies the row when the whole set is moved.
        origin: "file:line", for error messages.
    """

    image: Path
    label: Path | None = None
    boxes: Path | None = None
    classes: tuple[str, ...] = ()
    subject: str = ""
    modality: str = ""
    task: str = ""
    group: str = ""
    split: str = ""
    name: str = ""
    origin: str = ""


def read_data(path: Path, splits: tuple[str, ...] | None = None) -> list[Row]:
    """The rows of a data table, of a folder of scans, or of one scan.

    Args:
        path: CSV, folder (searched recursively; files called label, seg or mask are left out) or scan.
        splits: keep rows of these splits only; None keeps all.

    Raises:
        InputError: nothing there, nothing readable, or nothing left in ``splits``.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a folder of scans or a data table (CSV)")
    if path.is_dir():
        rows = list(_scan_folder(path))
        if not rows:
            raise InputError(f"{path}: holds no scan ({', '.join(SUFFIXES)} or DICOM)")
    elif path.suffix.lower() == ".csv":
        rows = list(read_table(path))
    else:
        rows = [Row(image=path, subject=path.name, name=path.name, origin=str(path))]
    if splits is not None:
        present = sorted({row.split for row in rows})
        rows = [row for row in rows if row.split in splits]
        if not rows:
            wanted = " or ".join(split or "(none)" for split in splits)
            found = ", ".join(split or "(none)" for split in present)
            raise InputError(f"{path}: no row has split {wanted}; it has {found}")
    return rows


def read_table(path: Path, *, check_files: bool = True) -> Iterator[Row]:
    """Rows of a data table, lazily.

    Args:
        path: CSV with a header of `COLUMNS`, ``image`` required; paths relative to the CSV;
            several classes in one cell separated by ``;``.
        check_files: whether a missing file is an error.

    Raises:
        InputError: naming file and line: no ``image`` column, unknown column or split, missing file, a
            subject in two splits that must not share subjects.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            _check_header(path, reader.fieldnames)
            split_of: dict[str, str] = {}
            empty = True
            for values in reader:
                if (
                    not any(cell.strip() for cell in values.values() if isinstance(cell, str))
                    and None not in values
                ):
                    continue  # spreadsheets leave lines of commas
                empty = False
                yield _to_row(path, reader.line_num, values, split_of, check_files)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not in UTF-8 ({error.reason}); save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a data table: {error}") from error
    if empty:
        raise InputError(f"{path}: has a header but no rows")


def _check_header(path: Path, names: object) -> None:
    header = list(names) if isinstance(names, (list, tuple)) else []
    if "image" not in header:
        found = ", ".join(header) or "nothing"
        way = "; separate columns by commas" if any(sign in found for sign in ";\t") else ""
        raise InputError(f"{path}:1: a data table needs the column image; found {found}{way}")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise InputError(f"{path}:1: the column {twice[0]} is there twice; keep one")
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        raise InputError(f"{path}:1: unknown column {unknown[0]!r}; known are {', '.join(COLUMNS)}")


def _to_row(
    path: Path, line: int, values: dict[str, str | None], split_of: dict[str, str], check_files: bool
) -> Row:
    origin = f"{path}:{line}"
    if None in values:
        raise InputError(f"{origin}: more cells than columns; quote cells that contain a comma")
    cells = {name: (values.get(name) or "").strip() for name in COLUMNS}
    if not cells["image"]:
        raise InputError(f"{origin}: the cell image is empty")
    if cells["split"] not in SPLITS:
        raise InputError(f"{origin}: split {cells['split']!r} is unknown; use {', '.join(SPLITS[1:])}")
    files: dict[str, Path | None] = {}
    for name in ("image", "label", "boxes"):
        file = path.parent / cells[name] if cells[name] else None
        if file is not None and check_files and not file.exists():
            raise InputError(f"{origin}: {name} {cells[name]} does not exist; paths are relative to the CSV")
        files[name] = file
    subject = cells["subject"] or cells["image"]
    _check_split(origin, subject, cells["split"], split_of)
    image = files["image"]
    return Row(
        image=image if image is not None else path,
        label=files["label"],
        boxes=files["boxes"],
        classes=tuple(part.strip() for part in cells["class"].split(";") if part.strip()),
        subject=subject,
        modality=cells["modality"].upper(),
        task=cells["task"],
        group=cells["group"],
        split=cells["split"],
        name=cells["image"],
        origin=origin,
    )


def _check_split(origin: str, subject: str, split: str, split_of: dict[str, str]) -> None:
    """A subject seen in training may not be judged on: leaks make every figure look better than it is."""
    judged = {"val", "test"}
    before = split_of.setdefault(subject, split)
    if before != split and (before in judged or split in judged):
        raise InputError(f"{origin}: subject {subject} is in split {before} and in {split}; keep it in one")


def _scan_folder(folder: Path) -> Iterator[Row]:
    """Image files, and folders that hold DICOM.

    Such a folder is read with its sub-folders. Where those are rows of their own, one of its files names it,
    which is read with the files beside it.
    """
    found: list[tuple[Path, Path]] = []  # image twice, or folder and its first DICOM file
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        dicom = None
        for file in sorted(files):
            path = Path(parent) / file
            name = file.lower()
            if file.startswith(".") or name == "dicomdir":  # the table of contents of a disc
                continue
            if name.endswith(SUFFIXES):
                stem = name.split(".")[0]
                if not any(stem == word or stem.endswith(("_" + word, "-" + word)) for word in _LABEL_NAMES):
                    found.append((path, path))
            elif dicom is None and (name.endswith(".dcm") or _has_dicom_magic(path)):
                dicom = path
        if dicom is not None:
            found.append((Path(parent), dicom))
    around = {above for path, first in found if path != first for above in path.parents}
    for path, first in found:
        yield _folder_row(first if path in around else path, folder)


def _folder_row(path: Path, folder: Path) -> Row:
    if path == folder:  # a series by itself
        name = folder.resolve().name
        return Row(image=path, subject=name, name=name, origin=str(path))
    name = path.relative_to(folder).as_posix()
    subject = path.parent.relative_to(folder).as_posix()
    return Row(image=path, subject=name if subject == "." else subject, name=name, origin=str(path))


def _has_dicom_magic(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
