from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.store.lock import alone
from medssl.store.project import Project, content_hash
from medssl.volume import Geometry, Volume


def scan(spatial_dims: int, *, modality: str = "MR", spacing: float = 2.0) -> Volume:
    shape = (4, 5, 6)[-spatial_dims:]
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(1, *shape)
    return Volume(values, Geometry.from_arrays(shape, [spacing] * spatial_dims), modality, "scan")


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_opened_again_equals_saved(tmp_path, spatial_dims):
    project = Project.create(tmp_path / "p")
    entry = project.add_volume(scan(spatial_dims), tmp_path / "a.nii.gz", series_uid="1.2.840.1")
    project.add_class("liver")
    project.add_class("tumour", (1, 2, 3))
    again = Project.open(tmp_path / "p")
    assert again == project
    assert again.volume(entry.id).shape == scan(spatial_dims).geometry.shape
    assert [(c.id, c.name) for c in again.classes] == [(1, "liver"), (2, "tumour")]
    assert again.classes[1].colour == (1, 2, 3)
    assert again.path_of(entry.id) == (tmp_path / "a.nii.gz").resolve()


def test_equal_content_is_one_volume_and_a_moved_file_gets_its_new_path(tmp_path):
    project = Project.create(tmp_path / "p")
    first = project.add_volume(scan(3), tmp_path / "a.nii.gz")
    second = project.add_volume(scan(3), tmp_path / "moved" / "b.mha")
    other = project.add_volume(scan(3, spacing=3), tmp_path / "c.nii.gz")
    assert first.id == second.id != other.id
    assert [entry.id for entry in project.volumes] == [first.id, other.id]
    assert project.path_of(first.id) == (tmp_path / "moved" / "b.mha").resolve()


def test_paths_inside_the_project_stay_relative(tmp_path):
    project = Project.create(tmp_path / "p")
    entry = project.add_volume(scan(3), tmp_path / "p" / "images" / "a.nii.gz")
    assert entry.path == "images/a.nii.gz"
    (tmp_path / "p").rename(tmp_path / "q")
    assert Project.open(tmp_path / "q").path_of(entry.id) == (tmp_path / "q/images/a.nii.gz").resolve()


def test_no_uid_reaches_the_disk(tmp_path):
    project = Project.create(tmp_path / "p")
    geometry = Geometry.from_arrays((4, 5, 6), frame_of_reference_uid="9.8.7.6")
    volume = Volume(np.zeros((1, 4, 5, 6), np.int16), geometry, "CT", "DOE^JOHN")
    project.add_volume(volume, tmp_path / "series", series_uid="1.2.3.4")
    text = (tmp_path / "p" / "project.json").read_text()
    assert not any(secret in text for secret in ("9.8.7.6", "1.2.3.4", "DOE"))


def test_hash_follows_voxels_and_grid():
    base = content_hash(scan(3))
    changed = scan(3).array.copy()
    changed[0, 1, 2, 3] += 1
    assert content_hash(scan(3)) == base
    assert content_hash(scan(3).with_array(changed)) != base
    assert content_hash(scan(3, spacing=2.1)) != base


def test_bad_classes_and_folders_are_refused_in_one_line(tmp_path):
    project = Project.create(tmp_path / "p")
    project.add_class("liver")
    with pytest.raises(InputError, match="same name"):
        project.add_class("liver")
    with pytest.raises(InputError, match="class name"):
        project.add_class("")
    with pytest.raises(InputError, match="class colour"):
        project.add_class("spleen", (0, 0, 256))
    assert [c.name for c in Project.open(tmp_path / "p").classes] == ["liver"]
    with pytest.raises(InputError, match="already"):
        Project.create(tmp_path / "p")
    with pytest.raises(InputError, match=r"no project\.json"):
        Project.open(tmp_path)
    with pytest.raises(InputError, match="no volume"):
        project.volume("abc")


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}', '{"format": "medssl-project-1", "x": 1}'])
def test_damaged_file_is_one_clear_error(tmp_path, text):
    (tmp_path / "project.json").write_text(text)
    with pytest.raises(InputError, match=r"project\.json"):
        Project.open(tmp_path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "p")
    project.add_class("liver")
    before = (tmp_path / "p" / "project.json").read_text()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match=r"No space.*choose another folder"):
        project.add_class("spleen")
    assert (tmp_path / "p" / "project.json").read_text() == before
    assert [c.name for c in project.classes] == ["liver"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [".project.lock", "project.json"]
    assert json.loads(before)["classes"][0]["name"] == "liver"


def test_an_id_is_never_given_twice(tmp_path):
    project = Project.create(tmp_path / "p")
    for name in ("a", "b", "c"):
        project.add_class(name)
    project.remove_class(2)
    project.remove_class(3)
    assert project.add_class("d").id == 4, "masks may still hold 2 and 3"
    assert [(c.id, c.name) for c in Project.open(tmp_path / "p").classes] == [(1, "a"), (4, "d")]
    with pytest.raises(InputError, match="no class 3"):
        project.change_class(3, name="c")


def test_two_windows_keep_what_the_other_one_changed(tmp_path):
    first = Project.create(tmp_path / "p")
    first.add_class("background")
    second = Project.open(tmp_path / "p")
    entry = first.add_volume(scan(3), tmp_path / "a.nii.gz")
    assert first.add_class("tumour").id == 2
    second.change_class(1, name="air", colour=(1, 2, 3))
    assert second.add_class("kidney").id == 3
    other = second.add_volume(scan(3, spacing=3), tmp_path / "b.nii.gz")
    first.remove_class(1)
    on_disk = Project.open(tmp_path / "p")
    assert [(c.id, c.name) for c in on_disk.classes] == [(2, "tumour"), (3, "kidney")]
    assert [e.id for e in on_disk.volumes] == [entry.id, other.id]
    assert on_disk == first


ADD_CLASSES = """
import sys
from medssl.store.project import Project

project = Project.open(sys.argv[1])
for name in sys.argv[2:]:
    project.add_class(name)
"""


def test_programs_that_change_at_the_same_time_lose_nothing(tmp_path):
    folder = str(Project.create(tmp_path / "p").folder)
    names = [[f"{n}-{m}" for m in range(8)] for n in range(3)]
    programs = [subprocess.Popen([sys.executable, "-c", ADD_CLASSES, folder, *part]) for part in names]
    assert [program.wait() for program in programs] == [0, 0, 0]
    classes = Project.open(tmp_path / "p").classes
    assert {entry.name for entry in classes} == {name for part in names for name in part}
    assert [entry.id for entry in classes] == list(range(1, 25))


def test_a_lock_that_is_not_given_back_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.store.lock._PATIENCE", 0.05)
    project = Project.create(tmp_path / "p")
    with alone(tmp_path / "p" / ".project.lock"), pytest.raises(InputError, match="another window"):
        project.add_class("liver")
    assert project.add_class("liver").id == 1


def test_a_volume_without_a_file_has_its_place_in_the_project(tmp_path):
    project = Project.create(tmp_path / "p")
    entry = project.add_volume(scan(3), None)
    copy = (tmp_path / "p" / "volumes" / f"{entry.id}.nii.gz").resolve()
    assert project.path_of(entry.id) == copy
    place = tmp_path / "a.nii.gz"
    place.touch()
    project.add_volume(scan(3), place)
    assert project.path_of(project.add_volume(scan(3), None).id) == place.resolve(), "its file is known"
    place.unlink()
    assert project.path_of(project.add_volume(scan(3), None).id) == copy


def test_what_changes_nothing_needs_no_writable_folder(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "p")
    entry = project.add_volume(scan(3), tmp_path / "a.nii.gz")
    monkeypatch.setattr("os.open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert project.add_volume(scan(3), tmp_path / "a.nii.gz") == entry
    with pytest.raises(InputError, match=r"Permission denied.*choose another folder"):
        project.add_volume(scan(3), tmp_path / "b.nii.gz")
