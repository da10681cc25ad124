"""A project on disk: which volumes, which label classes, and where everything else lies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medssl.config.run import explain
from medssl.errors import InputError
from medssl.store.atomic import write_atomically
from medssl.volume import Volume

FORMAT = "medssl-project-1"
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


class Project:
    """A folder with ``project.json``, ``labels/``, ``features/`` and ``runs/``.

    Every change is on disk when the method returns; a project opened again equals the one saved.
    The object holds no signals and no arrays.

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
        folder = Path(folder)
        if (folder / "project.json").exists():
            raise InputError(f"{folder}: holds a project already; open it or choose another folder")
        project = cls(folder, _ProjectFile())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            project._save(project._content)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        return project

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """The project in ``folder``.

        Raises:
            InputError: there is none, or its file cannot be understood.
        """
        folder = Path(folder)
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
            return cls(folder, _ProjectFile.model_validate(values))
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

    def add_volume(self, volume: Volume, path: Path | str, series_uid: str = "") -> VolumeEntry:
        """Enter a volume, or find it again by its content; a moved file gets its new path.

        Args:
            volume: the image as read.
            path: file or series folder it came from.
            series_uid: chosen series of a folder with several; only its `series_key` is kept.
        """
        sha256 = content_hash(volume)
        entry = VolumeEntry(
            id=sha256[:16],
            sha256=sha256,
            path=self._to_stored(Path(path)),
            series=series_key(series_uid),
            modality=volume.modality,
            shape=volume.geometry.shape,
        )
        if entry not in self.volumes:
            known = [entry if old.id == entry.id else old for old in self.volumes]
            self._replace(volumes=tuple(known if entry in known else [*known, entry]))
        return entry

    def path_of(self, volume_id: str) -> Path:
        """Where the volume was last found, absolute."""
        path = Path(self.volume(volume_id).path)
        return path if path.is_absolute() else self.folder.resolve() / path

    def add_class(self, name: str, colour: tuple[int, int, int] | None = None) -> LabelClass:
        """A new class with the smallest free id.

        Raises:
            InputError: the name is taken or empty, or all 255 ids are.
        """
        taken = {entry.id for entry in self.classes}
        free = next((number for number in range(1, 256) if number not in taken), None)
        if free is None:
            raise InputError("a project has at most 255 classes; remove one first")
        added = _label_class(id=free, name=name, colour=colour or PALETTE[(free - 1) % len(PALETTE)])
        self.set_classes((*self.classes, added))
        return added

    def set_classes(self, classes: tuple[LabelClass, ...]) -> None:
        """Replace the list of classes: rename, recolour, remove.

        Raises:
            InputError: two classes share an id or a name.
        """
        names, ids = {entry.name for entry in classes}, {entry.id for entry in classes}
        if len(names) < len(classes) or len(ids) < len(classes):
            raise InputError("two classes have the same name or number; give each its own")
        self._replace(classes=tuple(sorted(classes, key=lambda entry: entry.id)))

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

    def _replace(self, **changes: Any) -> None:
        self._save(self._content.model_copy(update=changes))

    def _save(self, content: _ProjectFile) -> None:
        write_atomically(self.folder / "project.json", json.dumps(content.model_dump(mode="json"), indent=1))
        self._content = content


def _label_class(**values: Any) -> LabelClass:
    try:
        return LabelClass.model_validate(values)
    except ValidationError as error:
        raise InputError(f"class {explain(error)}") from error
