from __future__ import annotations

from pathlib import Path

import pytest

from medssl.data.table import read_data, read_table
from medssl.errors import InputError


def write(folder: Path, text: str) -> Path:
    for name in ("a.nii.gz", "b.nii", "a_label.nii.gz"):
        (folder / name).write_bytes(b"x")
    path = folder / "table.csv"
    path.write_text(text)
    return path


def test_reads_every_column(tmp_path: Path) -> None:
    table = write(
        tmp_path,
        "image,label,boxes,class,subject,modality,task,group,split\n"
        "a.nii.gz,a_label.nii.gz,,liver; spleen,s1,ct,organs,abdomen,train\n"
        "b.nii,,,,s2,MR,,,\n",
    )
    first, second = read_table(table)
    assert first.image == tmp_path / "a.nii.gz"
    assert first.label == tmp_path / "a_label.nii.gz"
    assert first.classes == ("liver", "spleen")
    assert (first.subject, first.modality, first.task, first.group) == ("s1", "CT", "organs", "abdomen")
    assert (first.split, first.origin) == ("train", f"{table}:2")
    assert (second.label, second.classes, second.split) == (None, (), "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("picture\na.nii.gz\n", "needs the column image"),
        ("image;label\na.nii.gz;b.nii.gz\n", "found image;label; separate columns by commas"),
        ("image,colour\na.nii.gz,red\n", "unknown column 'colour'"),
        ("image,split\na.nii.gz,training\n", ":2: split 'training'"),
        ("image\na.nii.gz\nmissing.nii\n", ":3: image missing.nii does not exist"),
        ("image,label\na.nii.gz,nothing.nii\n", ":2: label nothing.nii does not exist"),
        (
            "image,split,subject\na.nii.gz,train,s\nb.nii,val,s\n",
            ":3: subject s is in split train and in val",
        ),
        ("image\na.nii.gz,more\n", ":2: more cells than columns"),
        ("image,split\n,train\n", ":2: the cell image is empty"),
        ("image\n", "no rows"),
        ("image,split\n,\n , \n", "no rows"),
        ("image,split,image\na.nii.gz,,b.nii\n", ":1: the column image is there twice"),
    ],
)
def test_errors_name_file_line_and_reason(tmp_path: Path, text: str, words: str) -> None:
    table = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        list(read_table(table))
    assert str(caught.value).startswith(str(table))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_lines_of_a_spreadsheet_are_no_rows(tmp_path: Path) -> None:
    table = write(tmp_path, "image,split\na.nii.gz,train\n,\n  ,\nb.nii,train\n,\n")
    assert [row.origin for row in read_table(table)] == [f"{table}:2", f"{table}:5"]


def test_another_encoding_is_named(tmp_path: Path) -> None:
    table = write(tmp_path, "image\na.nii.gz\n")
    table.write_bytes("image,class\na.nii.gz,Größe\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"is not in UTF-8 .*; save it as CSV UTF-8"):
        list(read_table(table))


def test_splits_are_selected_and_an_empty_split_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path, "image,split\na.nii.gz,train\nb.nii,val\n")
    assert [row.name for row in read_data(table, ("val",))] == ["b.nii"]
    with pytest.raises(InputError, match="no row has split test"):
        read_data(table, ("test",))
    with pytest.raises(InputError, match=r"no row has split unlabelled or \(none\); it has train, val"):
        read_data(table, ("unlabelled", ""))


def test_folder_is_searched_for_scans_and_series(tmp_path: Path) -> None:
    write(tmp_path, "image\n")
    series = tmp_path / "p1" / "ct"
    series.mkdir(parents=True)
    (series / "1.dcm").write_bytes(b"")
    (series / "2.dcm").write_bytes(b"")
    other = tmp_path / "p2"
    other.mkdir()
    (other / "IM0").write_bytes(b"\0" * 128 + b"DICM")
    (other / "notes.txt").write_text("not a scan")
    rows = read_data(tmp_path)
    assert [row.name for row in rows] == ["a.nii.gz", "b.nii", "p1/ct", "p2"]
    assert rows[2].subject == "p1"


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_data(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no scan"):
        read_data(tmp_path)


def test_dicom_in_a_folder_and_below_it_is_listed_once(tmp_path: Path) -> None:
    for name in ("DICOMDIR", "p1/A", "p1/B", "p1/late/A", "p2/a.dcm", "p2/deep/below/a.dcm", "p3/only/a.dcm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0" * 128 + b"DICM")
    rows = read_data(tmp_path)
    # a folder is read with all below it: where that holds a row of its own, a file stands for its series
    assert [row.name for row in rows] == ["p1/A", "p1/late", "p2/a.dcm", "p2/deep/below", "p3/only"]
    assert [row.subject for row in rows] == ["p1", "p1", "p2", "p2/deep", "p3"]


def test_a_dicom_series_is_data_by_itself_and_hidden_folders_are_none(tmp_path: Path, monkeypatch) -> None:
    series = tmp_path / "ct"
    (series / ".trash").mkdir(parents=True)
    for path in (series / "1.dcm", series / ".trash" / "scan.nii.gz"):
        path.touch()
    (row,) = read_data(series)
    assert (row.image, row.name, row.subject) == (series, "ct", "ct")
    monkeypatch.chdir(series)
    assert [row.name for row in read_data(Path())] == ["ct"]
    (series / "other.nii").touch()
    assert sorted(row.name for row in read_data(series)) == ["ct", "other.nii"]
