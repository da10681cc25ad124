from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.errors import InputError
from medssl.store.edits import Annotation, AnnotationEdit, Edit
from medssl.store.journal import Journal

SHAPES = {2: (9, 11), 3: (5, 9, 11)}


def stroke(array: np.ndarray, start: tuple[int, ...], size: int, value: int, mask: str = "scribbles") -> Edit:
    """Paint a cube into ``array`` and return the edit that says so."""
    box = tuple(slice(s, s + size) for s in start)
    before = array[box].copy()
    array[box] = value
    return Edit(start, before, array[box].copy(), value, mask=mask)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_replay_equals_array(tmp_path, spatial_dims):
    shape = SHAPES[spatial_dims]
    array = np.zeros(shape, np.uint8)
    journal = Journal(tmp_path, shape)
    for number in range(5):
        journal.append(stroke(array, (number % 3,) * spatial_dims, 2, number))
    np.testing.assert_array_equal(journal.restore(), array)
    np.testing.assert_array_equal(Journal(tmp_path, shape).restore(), array)
    assert [edit.class_id for edit in Journal(tmp_path, shape).history()] == [0, 1, 2, 3, 4]
    assert Journal(tmp_path, shape).notes == []


def test_edit_between_is_tight_and_knows_nothing_changed():
    before = np.zeros((6, 7, 8), np.uint8)
    after = before.copy()
    after[2, 3:5, 1] = 7
    edit = Edit.between(before, after, start=(10, 20, 30), class_id=7, author="probe")
    assert edit is not None
    assert edit.start == (12, 23, 31)
    assert edit.after.shape == (1, 2, 1)
    assert (edit.class_id, edit.author) == (7, "probe")
    assert Edit.between(after, after) is None


@pytest.mark.parametrize("top", [1, 255])
def test_pack_round_trip(top):
    edit = Edit((3, 4), np.zeros((2, 3), np.int32), np.full((2, 3), top, np.int64), 1, "me", 5.5, "lesions")
    header, body = edit.pack()
    again = Edit.unpack(header, body)
    np.testing.assert_array_equal(again.after, edit.after)
    np.testing.assert_array_equal(again.before, edit.before)
    assert (again.start, again.class_id, again.author, again.time, again.mask) == (
        (3, 4),
        1,
        "me",
        5.5,
        "lesions",
    )
    assert again.after.dtype.itemsize == 1


actions = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 7), st.integers(0, 9), st.integers(1, 2), st.integers(0, 4)),
        st.sampled_from(["undo", "redo", "snapshot", "reopen"]),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=40)
@given(actions=actions)
def test_any_sequence_equals_a_list_of_states(tmp_path_factory, actions):
    """Oracle: every state kept whole; undo and redo walk that list."""
    folder, shape = tmp_path_factory.mktemp("journal"), SHAPES[2]
    journal = Journal(folder, shape)
    states, position = [np.zeros(shape, np.uint8)], 0
    for action in actions:
        if action == "undo":
            assert (journal.undo() is not None) == (position > 0)
            position = max(0, position - 1)
        elif action == "redo":
            assert (journal.redo() is not None) == (position < len(states) - 1)
            position = min(len(states) - 1, position + 1)
        elif action == "snapshot":
            journal.snapshot()
        elif action == "reopen":
            journal.close()
            journal = Journal(folder, shape)
        else:
            y, x, size, value = action
            array = states[position].copy()
            journal.append(stroke(array, (y, x), size, value))
            states, position = [*states[: position + 1], array], position + 1
        np.testing.assert_array_equal(journal.restore(), states[position])
    journal.close()
    np.testing.assert_array_equal(Journal(folder, shape).restore(), states[position])


def test_undo_law_applied_to_a_screen(tmp_path):
    """The change returned by undo and redo takes the viewer's own array back and forth."""
    screen = np.zeros(SHAPES[3], np.uint8)
    journal = Journal(tmp_path, SHAPES[3])
    journal.append(stroke(screen, (0, 0, 0), 3, 1))
    first = screen.copy()
    journal.append(stroke(screen, (1, 1, 1), 3, 2))
    second = screen.copy()
    undone = journal.undo()
    assert isinstance(undone, Edit)
    undone.apply(screen)
    np.testing.assert_array_equal(screen, first)
    redone = journal.redo()
    assert isinstance(redone, Edit)
    redone.apply(screen)
    np.testing.assert_array_equal(screen, second)
    journal.undo()
    journal.append(stroke(first, (2, 2, 2), 1, 3))
    assert journal.redo() is None
    assert not journal.can_redo


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "labels").write_text("a file where the folder should be")
    journal = Journal(tmp_path / "labels" / "scan", SHAPES[3])
    with pytest.raises(InputError, match=r"scan: labels cannot be saved \(.+\); choose another"):
        journal.append(stroke(np.zeros(SHAPES[3], np.uint8), (0, 0, 0), 2, 1))
    assert not journal.can_undo


def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path):
    (tmp_path / "scan").mkdir()
    journal = Journal(tmp_path / "scan", SHAPES[3])
    (tmp_path / "scan" / "journal.bin").mkdir()
    with pytest.raises(InputError, match=r"labels cannot be saved \(.+\)"):
        journal.append(stroke(np.zeros(SHAPES[3], np.uint8), (0, 0, 0), 2, 1))


def test_a_snapshot_that_fails_does_not_keep_the_file(tmp_path, monkeypatch):
    array = np.zeros(SHAPES[3], np.uint8)
    journal = Journal(tmp_path, SHAPES[3])
    for number in range(200):
        journal.append(stroke(array, (0, 0, 0), 2, number % 5))
    full = OSError(28, "No space left")
    monkeypatch.setattr("medssl.store.journal.write_archive", lambda *_: (_ for _ in ()).throw(full))
    journal.close()
    again = Journal(tmp_path, SHAPES[3])
    again.append(stroke(array, (1, 1, 1), 2, 3))
    np.testing.assert_array_equal(again.restore(), array)


@pytest.mark.parametrize("cut", [1, 5, 13, 40])
def test_torn_last_record_is_dropped_with_a_note_and_set_aside(tmp_path, cut):
    array = np.zeros(SHAPES[3], np.uint8)
    journal = Journal(tmp_path, SHAPES[3])
    journal.append(stroke(array, (0, 0, 0), 2, 1))
    whole, kept = array.copy(), (tmp_path / "journal.bin").stat().st_size
    journal.append(stroke(array, (2, 2, 2), 2, 2))
    journal.close()
    data = (tmp_path / "journal.bin").read_bytes()
    (tmp_path / "journal.bin").write_bytes(data[:-cut])

    again = Journal(tmp_path, SHAPES[3])
    np.testing.assert_array_equal(again.restore(), whole)
    assert len(again.notes) == 1
    assert "not a whole edit" in again.notes[0]
    assert (tmp_path / "journal.bin").stat().st_size == len(data) - cut, "opening only reads"
    again.append(stroke(whole, (3, 3, 3), 2, 3))
    again.close()
    assert (tmp_path / f"unfinished-{kept}.bin").read_bytes() == data[kept:-cut]
    final = Journal(tmp_path, SHAPES[3])
    assert final.notes == []
    np.testing.assert_array_equal(final.restore(), whole)


def test_a_flipped_bit_is_found(tmp_path):
    array = np.zeros(SHAPES[3], np.uint8)
    journal = Journal(tmp_path, SHAPES[3])
    journal.append(stroke(array, (0, 0, 0), 2, 1))
    whole = array.copy()
    journal.append(stroke(array, (2, 2, 2), 2, 2))
    journal.close()
    data = bytearray((tmp_path / "journal.bin").read_bytes())
    data[-3] ^= 1
    (tmp_path / "journal.bin").write_bytes(bytes(data))
    again = Journal(tmp_path, SHAPES[3])
    np.testing.assert_array_equal(again.restore(), whole)
    assert len(again.notes) == 1


def test_snapshot_is_read_and_a_damaged_one_is_not_needed(tmp_path):
    array = np.zeros(SHAPES[3], np.uint8)
    journal = Journal(tmp_path, SHAPES[3])
    for number in range(4):
        journal.append(stroke(array, (number % 3, 0, number), 2, number + 1))
    journal.undo()
    state = journal.restore()
    journal.snapshot()
    journal.close()
    again = Journal(tmp_path, SHAPES[3])
    np.testing.assert_array_equal(again.restore(), state)
    assert again.redo() is not None
    np.testing.assert_array_equal(again.restore(), array)
    again.close()

    snapshot = tmp_path / "snapshot.zip"
    snapshot.write_bytes(snapshot.read_bytes()[:-30])
    damaged = Journal(tmp_path, SHAPES[3])
    np.testing.assert_array_equal(damaged.restore(), array)
    assert "damaged" in damaged.notes[0]


def test_close_takes_a_snapshot_after_many_edits(tmp_path):
    array = np.zeros(SHAPES[2], np.uint8)
    journal = Journal(tmp_path, SHAPES[2])
    for number in range(220):
        journal.append(stroke(array, (number % 8, number % 9), 1, number % 5))
    journal.close()
    assert (tmp_path / "snapshot.zip").exists()
    np.testing.assert_array_equal(Journal(tmp_path, SHAPES[2]).restore(), array)


def test_annotations_share_the_history(tmp_path):
    journal = Journal(tmp_path, SHAPES[3])
    point = Annotation("a", "point", (1.0, 2.0, 3.0), 1)
    box = Annotation("b", "box", (0.0, 0.0, 0.0, 2.0, 2.0, 2.0), 2, "detector", 1.5, 0.9)
    journal.append(AnnotationEdit(None, point))
    journal.append(AnnotationEdit(None, box))
    journal.append(AnnotationEdit(point, None))
    assert Journal(tmp_path, SHAPES[3]).annotations() == (box,)
    journal.undo()
    assert set(journal.annotations()) == {point, box}
    journal.snapshot()
    journal.close()
    assert set(Journal(tmp_path, SHAPES[3]).annotations()) == {point, box}


def test_refusals(tmp_path):
    journal = Journal(tmp_path, SHAPES[3])
    with pytest.raises(InputError, match="leaves the volume"):
        journal.append(Edit((4, 0, 0), np.zeros((2, 1, 1), np.uint8), np.ones((2, 1, 1), np.uint8)))
    with pytest.raises(InputError, match="0 to 255"):
        journal.append(Edit((0, 0, 0), np.zeros((1, 1, 1), np.int32), np.full((1, 1, 1), 256)))
    assert not (tmp_path / "journal.bin").exists()
    journal.append(Edit((0, 0, 0), np.zeros((1, 1, 1), np.uint8), np.ones((1, 1, 1), np.uint8)))
    journal.snapshot()
    with pytest.raises(InputError, match="this one has"):
        Journal(tmp_path, (5, 9, 12))
    with pytest.raises(ValueError, match="do not fit"):
        Edit((0, 0), np.zeros((1, 1, 1), np.uint8), np.ones((1, 1, 1), np.uint8))
    with pytest.raises(ValueError, match="integers"):
        Edit((0,), np.zeros(1), np.ones(1))


@pytest.mark.skipif(sys.platform == "win32", reason="no lock on Windows")
def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path):
    array = np.zeros(SHAPES[2], np.uint8)
    first = Journal(tmp_path, SHAPES[2])
    first.append(stroke(array, (0, 0), 2, 1))
    second = Journal(tmp_path, SHAPES[2])
    np.testing.assert_array_equal(second.restore(), array)
    with pytest.raises(InputError, match="another window"):
        second.append(stroke(array.copy(), (1, 1), 2, 2))
    first.append(stroke(array, (3, 3), 2, 4))
    first.close()
    second.append(stroke(array, (1, 1), 2, 2))
    np.testing.assert_array_equal(second.restore(), array)


def test_a_full_disk_loses_only_the_stroke_that_did_not_fit(tmp_path, monkeypatch):
    array = np.zeros(SHAPES[2], np.uint8)
    journal = Journal(tmp_path, SHAPES[2])
    journal.append(stroke(array, (0, 0), 2, 1))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(InputError, match="not saved: No space left"):
            journal.append(stroke(array.copy(), (4, 4), 2, 2))
    np.testing.assert_array_equal(journal.restore(), array)
    journal.append(stroke(array, (5, 5), 2, 3))
    journal.close()
    again = Journal(tmp_path, SHAPES[2])
    np.testing.assert_array_equal(again.restore(), array)
    assert again.notes == []


PAINTER = """
import sys
from pathlib import Path
import numpy as np
from medssl.store.edits import Edit
from medssl.store.journal import Journal
journal = Journal(Path(sys.argv[1]), (64, 64))
for number in range(100000):
    y, x = divmod(number, 64)
    journal.append(Edit((y % 64, x), np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8)))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_kill_between_strokes_loses_nothing(tmp_path):
    painter = subprocess.Popen(
        [sys.executable, "-c", PAINTER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert painter.stdout is not None
    said = [painter.stdout.readline() for _ in range(25)]
    painter.send_signal(signal.SIGKILL)
    rest = painter.stdout.read().split()
    painter.stdout.close()
    painter.wait()
    strokes = len(said) + len(rest)
    restored = Journal(tmp_path, (64, 64)).restore()
    flat = restored.ravel()
    assert flat[:strokes].all(), "every stroke that was acknowledged is there"
    assert flat[strokes + 1 :].sum() == 0, "at most the stroke under way is there too"


def test_a_large_stroke_is_cheap(tmp_path):
    """A box of 64^3 voxels, far beyond a brush, takes well under 20 ms (median of 9)."""
    shape = (96, 96, 96)
    journal = Journal(Path(tmp_path), shape)
    zz, yy, xx = np.ogrid[:64, :64, :64]
    ball = ((zz - 32) ** 2 + (yy - 32) ** 2 + (xx - 32) ** 2 < 900).astype(np.uint8)
    times = []
    for number in range(9):
        edit = Edit((number,) * 3, np.zeros_like(ball), ball, 1)
        begin = time.perf_counter()
        journal.append(edit)
        times.append(time.perf_counter() - begin)
    assert np.median(times) < 0.2, "generous: the target of 20 ms holds on a quiet machine"
