"""A project on disk: which volumes, which label classes, and where everything else lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medssl.config.run import explain
from medssl.errors import InputError
from medssl.store.atomic import write_atomically
from medssl.store.lock import alone
from medssl.volume import Volume

FORMAT = "medssl-project-1"
MOST_CLASSES = 255
PALETTE = (
    (230, 75, 53),
    (77, 187, 213),
    (0, 160, 135),
    (243, 155, 127),
    (60, 84, 136),
    (250, 210, 60),
    (145, 100, 190),
    (126, 97, 72),
)
"""Colours of the first classes, told apart on grey images; later classes repeat them."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelClass(_Value):
    """What a painted value means."""

    id: int = Field(ge=1, le=255, description="value in the masks; 0 is unlabelled")
    name: str = Field(min_length=1)
    colour: tuple[int, int, int] = Field(description="red, green, blue, 0 to 255")

    @field_validator("colour")
    @classmethod
    def _in_range(cls, colour: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(not 0 <= part <= 255 for part in colour):
            raise ValueError("red, green and blue lie in 0 to 255")
        return colour


class VolumeEntry(_Value):
    """One volume of the project: what it is and where it was found, nothing about the patient."""

    id: str = Field(description="first 16 hex digits of the content hash; names its folders")
    sha256: str = Field(description="content hash: voxels and grid, not the file")
    path: str = Field(description="file or series folder; relative to the project where it lies inside")
    series: str = Field(default="", description="`series_key` of the chosen series of a DICOM folder")
    modality: str = ""
    shape: tuple[int, ...]


class _ProjectFile(_Value):
    format: str = FORMAT
    classes: tuple[LabelClass, ...] = ()
    volumes: tuple[VolumeEntry, ...] = ()
    last_class: int = Field(default=0, description="highest class id ever given; masks may still hold it")

    def with_classes(self, classes: tuple[LabelClass, ...]) -> _ProjectFile:
        """The same project with other classes.

        Raises:
            InputError: two classes share a name.
        """
        if len({entry.name for entry in classes}) < len(classes):
            raise InputError("two classes have the same name; give each its own")
        ordered = tuple(sorted(classes, key=lambda entry: entry.id))
        return self.model_copy(update={"classes": ordered, "last_class": max(self.highest, *_ids(ordered))})

    @property
    def highest(self) -> int:
        """The highest class id that a mask can hold."""
        return max(self.last_class, *_ids(self.classes))


def content_hash(volume: Volume) -> str:
    """SHA-256 of voxels and grid: the same scan in another format or folder has the same hash.

    UIDs and everything else that identifies a patient stay out.
    """
    geometry = volume.geometry
    numbers = [*geometry.spacing, *geometry.origin, *np.ravel(geometry.direction)]
    digest = hashlib.sha256()
    head = [volume.array.dtype.str, volume.array.shape, [f"{number:.4f}" for number in numbers]]
    digest.update(json.dumps(head).encode())
    digest.update(np.ascontiguousarray(volume.array).data)
    return digest.hexdigest()


def series_key(series_uid: str) -> str:
    """A name for a DICOM series that tells it from its neighbours without keeping its UID."""
    return hashlib.sha256(series_uid.encode()).hexdigest()[:16] if series_uid else ""


def copy_path(volume_id: str) -> str:
    """Where the project keeps a volume that has no file of its own, relative to the project."""
    return f"volumes/{volume_id}.nii.gz"


class Project:
    """A folder with ``project.json``, ``labels/``, ``volumes/``, ``features/`` and ``runs/``.

    Every change is on disk when the method returns; a project opened again equals the one saved.
    Each is made to the file as it stands, under a lock, so that two windows on one project keep what
    the other one changed. The object holds no signals and no arrays.

    Args:
        folder: the project folder; ``project.json`` in it exists (see `create` and `open`).
    """

    def __init__(self, folder: Path, content: _ProjectFile) -> None:
        self.folder = folder
        self._content = content

    @classmethod
    def create(cls, folder: Path | str) -> Self:
        """A new, empty project.

        Raises:
            InputError: the folder holds a project already, or cannot be written.
        """
        project = cls(Path(folder), _ProjectFile())
        try:
            project.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise project._refused(error) from error

        def first(_: None) -> _ProjectFile:
            if (project.folder / "project.json").exists():
                raise InputError(f"{folder}: holds a project already; open it or choose another folder")
            return project._content

        project._write(first, lambda: None)
        return project

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """The project in ``folder``.

        Raises:
            InputError: there is none, or its file cannot be understood.
        """
        return cls(Path(folder), cls._read(Path(folder)))

    @staticmethod
    def _read(folder: Path) -> _ProjectFile:
        path = folder / "project.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{folder}: not a MedSSL project (no project.json in it)") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise InputError(f"{path}: not a {FORMAT} file; open it with the version that wrote it")
        try:
            return _ProjectFile.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error)}") from error

    @classmethod
    def open_or_create(cls, folder: Path | str) -> Self:
        """The project in ``folder``, created where there is none."""
        return cls.open(folder) if (Path(folder) / "project.json").exists() else cls.create(folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Project) and self._content == other._content

    __hash__ = None  # type: ignore[assignment]

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Label classes by ascending id."""
        return self._content.classes

    @property
    def volumes(self) -> tuple[VolumeEntry, ...]:
        """Volumes in the order in which they were added."""
        return self._content.volumes

    def volume(self, volume_id: str) -> VolumeEntry:
        """The entry of a volume.

        Raises:
            InputError: no such volume in the project.
        """
        for entry in self.volumes:
            if entry.id == volume_id:
                return entry
        raise InputError(f"{self.folder}: no volume {volume_id} in this project; add it first")

    def add_volume(self, volume: Volume, path: Path | str | None, series_uid: str = "") -> VolumeEntry:
        """Enter a volume, or find it again by its content; a moved file gets its new path.

        Args:
            volume: the image as read.
            path: file or series folder it came from; None where there is none. Then the entry names the
                place in the project where a copy belongs, unless its file is known from before.
            series_uid: chosen series of a folder with several; only its `series_key` is kept.

        Raises:
            InputError: the project cannot be written.
        """
        sha256 = content_hash(volume)
        entry = VolumeEntry(
            id=sha256[:16],
            sha256=sha256,
            path=copy_path(sha256[:16]) if path is None else self._to_stored(Path(path)),
            series=series_key(series_uid),
            modality=volume.modality,
            shape=volume.geometry.shape,
        )

        def entered(content: _ProjectFile) -> _ProjectFile:
            old = next((known for known in content.volumes if known.id == entry.id), None)
            if old is None:
                return content.model_copy(update={"volumes": (*content.volumes, entry)})
            update = entry
            if path is None and self._absolute(old.path).exists():
                update = old.model_copy(update={"modality": entry.modality})
            volumes = tuple(update if known.id == entry.id else known for known in content.volumes)
            return content.model_copy(update={"volumes": volumes})

        self._change(entered)
        return self.volume(entry.id)

    def path_of(self, volume_id: str) -> Path:
        """Where the volume was last found, absolute."""
        return self._absolute(self.volume(volume_id).path)

    def add_class(self, name: str, colour: tuple[int, int, int] | None = None) -> LabelClass:
        """A new class with the next id; an id is never given twice, for masks may still hold it.

        Raises:
            InputError: the name is taken or empty, all 255 ids are, or the project cannot be written.
        """
        added: list[LabelClass] = []

        def longer(content: _ProjectFile) -> _ProjectFile:
            number = content.highest + 1
            if number > MOST_CLASSES:
                raise InputError(f"{self.folder}: all {MOST_CLASSES} classes are given; use another project")
            given = colour or PALETTE[(number - 1) % len(PALETTE)]
            added.append(_label_class(id=number, name=name, colour=given))
            return content.with_classes((*content.classes, added[-1]))

        self._change(longer)
        return added[-1]

    def change_class(
        self, class_id: int, name: str | None = None, colour: tuple[int, int, int] | None = None
    ) -> None:
        """Give a class another name or colour.

        Raises:
            InputError: no such class, the name is taken or empty, or the project cannot be written.
        """
        given = {key: value for key, value in (("name", name), ("colour", colour)) if value is not None}

        def changed(content: _ProjectFile) -> _ProjectFile:
            old = self._class(content, class_id)
            new = _label_class(**{**old.model_dump(), **given})
            return content.with_classes(tuple(new if entry is old else entry for entry in content.classes))

        self._change(changed)

    def remove_class(self, class_id: int) -> None:
        """Take a class off the list; what is painted with it stays in the masks.

        Raises:
            InputError: no such class, or the project cannot be written.
        """

        def shorter(content: _ProjectFile) -> _ProjectFile:
            old = self._class(content, class_id)
            return content.with_classes(tuple(entry for entry in content.classes if entry is not old))

        self._change(shorter)

    def labels_folder(self, volume_id: str) -> Path:
        """Where the labels of a volume lie."""
        return self.folder / "labels" / self.volume(volume_id).id

    @property
    def features_folder(self) -> Path:
        """Where dense features and indices lie; may be deleted, they are computed anew."""
        return self.folder / "features"

    @property
    def runs_folder(self) -> Path:
        """Where training runs lie."""
        return self.folder / "runs"

    def _to_stored(self, path: Path) -> str:
        path, home = path.resolve(), self.folder.resolve()
        return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)

    def _absolute(self, stored: str) -> Path:
        path = Path(stored)
        return path if path.is_absolute() else self.folder.resolve() / path

    def _class(self, content: _ProjectFile, class_id: int) -> LabelClass:
        found = next((entry for entry in content.classes if entry.id == class_id), None)
        if found is None:
            raise InputError(f"{self.folder}: no class {class_id} in this project; open the scan again")
        return found

    def _change(self, make: Callable[[_ProjectFile], _ProjectFile]) -> None:
        """Change the file as it stands now; what changes nothing does not ask for a writable folder."""
        self._content = self._read(self.folder)
        if make(self._content) != self._content:
            self._write(make, lambda: self._read(self.folder))

    def _write(self, make: Callable[[Any], _ProjectFile], read: Callable[[], _ProjectFile | None]) -> None:
        try:
            with alone(self.folder / ".project.lock"):
                content = make(read())
                text = json.dumps(content.model_dump(mode="json"), indent=1)
                write_atomically(self.folder / "project.json", text)
        except OSError as error:
            raise self._refused(error) from error
        self._content = content

    def _refused(self, error: OSError) -> InputError:
        if isinstance(error, BlockingIOError):
            return InputError(f"{self.folder}: another window or program changes it; try again")
        return InputError(f"{self.folder}: cannot be written ({error.strerror}); choose another folder")


def _ids(classes: tuple[LabelClass, ...]) -> tuple[int, ...]:
    return (0, *(entry.id for entry in classes))


def _label_class(**values: Any) -> LabelClass:
    try:
        return LabelClass.model_validate(values)
    except ValidationError as error:
        raise InputError(f"class {explain(error)}") from error
