from __future__ import annotations

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.store.edits import Edit
from medssl.store.labels import LabelStore
from medssl.store.project import Project
from medssl.volume import Geometry, Volume


@pytest.fixture(params=[2, 3])
def project(tmp_path, request) -> Project:
    shape = (7, 8, 9)[: request.param]
    project = Project.create(tmp_path / "project")
    volume = Volume(np.zeros((1, *shape), np.int16), Geometry.from_arrays(shape), "CT", "scan")
    project.add_volume(volume, tmp_path / "scan.nii.gz")
    return project


def open_labels(project: Project) -> LabelStore:
    return LabelStore(Project.open(project.folder), project.volumes[0].id)


def test_strokes_points_and_boxes_are_there_again(project):
    labels = open_labels(project)
    n = len(labels.shape)
    before = labels.restore()
    after = before.copy()
    after[(slice(1, 3),) * n] = 2
    edit = Edit.between(before, after, class_id=2)
    assert edit is not None
    labels.journal.append(edit)
    point = labels.add_point((1,) * n, 1)
    box = labels.add_box((0,) * n + (4,) * n, 2, author="detector", score=0.5)
    labels.close()
    again = open_labels(project)
    np.testing.assert_array_equal(again.restore(), after)
    assert again.voxels_per_class() == {2: 2**n}
    assert again.annotations("point") == (point,)
    assert again.annotations("box") == (box,)
    assert again.annotations("box")[0].author == "detector"
    again.remove(point.id)
    assert again.annotations() == (box,)
    again.undo()
    assert set(again.annotations()) == {point, box}
    again.redo()
    assert again.annotations() == (box,)


def test_a_proposal_keeps_its_origin_and_is_replaced_as_a_whole(project):
    labels = open_labels(project)
    mask = np.zeros(labels.shape, np.int64)
    mask[0] = 3
    labels.set_proposal("probe", np.ones(labels.shape, np.uint8), "probe")
    labels.set_proposal("probe", mask, "probe", source="default")
    values, origin = open_labels(project).proposal("probe")
    np.testing.assert_array_equal(values, mask)
    assert (origin.author, origin.source) == ("probe", "default")
    assert labels.proposals() == ("probe",)
    assert labels.restore().sum() == 0


def test_refusals(project):
    labels = open_labels(project)
    n = len(labels.shape)
    with pytest.raises(InputError, match="no such proposal"):
        labels.proposal("probe")
    with pytest.raises(InputError, match="its shape is"):
        labels.set_proposal("probe", np.zeros((1,) * n, np.uint8), "probe")
    with pytest.raises(InputError, match="whole numbers"):
        labels.set_proposal("probe", np.full(labels.shape, 256), "probe")
    with pytest.raises(InputError, match="outside"):
        labels.add_point((50,) * n, 1)
    with pytest.raises(InputError, match="empty or outside"):
        labels.add_box((2,) * n + (2,) * n, 1)
    with pytest.raises(InputError, match="no point or box"):
        labels.remove("nothing")
    (labels.folder / "proposals").mkdir(parents=True)
    (labels.folder / "proposals" / "probe.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        labels.proposal("probe")
