"""Whatever lies in a data set is used rightly or named with its reason."""

import pytest

from small_data import folder, png
from tessera.data.find import find
from tessera.errors import ConfigError, DataError


def reason_of(work, *errors):
    """What the expected error says, or None where there is none."""
    try:
        work()
    except errors as error:
        return str(error)


def test_captions_in_other_encodings_are_read_and_what_is_not_text_is_left_out(tmp_path):
    data = folder(
        tmp_path, wide__png=png("blue"), wide__txt="ein Vogel, schön".encode("utf-16"),
        west__png=png("green"), west__txt="schön".encode("cp1252"), bad__png=png("white"), bad__txt=png(),
    )  # fmt: skip
    found = find(str(data))
    assert {p.key: p.captions[0] for p in found.pairs} == {
        "good.png": "a good one", "wide.png": "ein Vogel, schön", "west.png": "schön",
    }  # fmt: skip
    assert "not text" in next(s.reason for s in found.skipped if s.path == "bad.png")


def coco(caption, name='"good.png"') -> str:
    return f'{{"images": [{{"id": 1, "file_name": {name}}}], "annotations": [{{"image_id": 1, "caption": {caption}}}]}}'


@pytest.mark.parametrize(
    "files",
    [
        {"x__json": coco("null")}, {"x__json": coco("3")}, {"x__json": coco("[1]")}, {"x__json": coco('"a"', "7")},
        {"x__json": '{"images": ' + "[" * 100_000}, {"metadata__jsonl": "[" * 100_000}, {"metadata__parquet": b"PAR1"},
        {"metadata__csv": 'file_name,text\n"' + "a" * 300}, {"metadata__csv": "file_name,text\ngood.png," + "x" * 140_000},
        {"metadata__jsonl": '{"file_name": "\\ud800.png", "text": "x"}\n{"file_name": "good.png", "text": "y"}'},
        {"metadata__csv": "File_Name; Text \n\ngood.png;one\n./good.png;two\n;\n"},
    ],
    ids=lambda files: f"{next(iter(files))} {str(next(iter(files.values())))[-30:]}",
)  # fmt: skip
def test_a_strange_table_costs_its_own_rows_or_is_one_sentence(files, tmp_path):
    data, found = folder(tmp_path, **files), []
    reason = reason_of(lambda: found.append(find(str(data))), DataError, ConfigError)
    assert found or str(tmp_path) in (reason or "")
    for read_folder in found:
        assert {p.key for p in read_folder.pairs} <= {"good.png"}
        assert all(s.reason for s in read_folder.skipped)


@pytest.mark.parametrize("path", ["{pipe:touch ran #,b}.tar", "{gs,x}://a.tar", "{pi,x}pe:touch ran"])
def test_no_command_hides_behind_braces(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, DataError)):
        find(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_called_like_a_command_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipe:touch ran; true.tar").write_bytes(b"no shard")
    (tmp_path / "pipe:touch ran.tar").write_bytes(b"no shard")
    with pytest.raises(DataError, match="2 left out"):
        find(".")
    assert not list(tmp_path.glob("ran*"))


def test_coco_as_it_is_published_is_read(tmp_path):
    for name in ("annotations", "train2017"):
        (tmp_path / name).mkdir()
    (tmp_path / "train2017" / "1.png").write_bytes(png())
    (tmp_path / "annotations" / "captions_train2017.json").write_text(coco('"a dog"', '"1.png"'))
    boxes = '{"images": [{"id": 1, "file_name": "1.png"}], "annotations": [{"image_id": 1, "bbox": [1, 2]}]}'
    (tmp_path / "annotations" / "instances_train2017.json").write_text(boxes)
    assert [(p.key, p.captions) for p in find(str(tmp_path)).pairs] == [("train2017/1.png", ("a dog",))]


def test_two_trees_of_equal_names_are_matched_in_one_pass(tmp_path, monkeypatch):
    for i in range(60):
        for tree_name, name, content in (
            ("images", "image.png", png()),
            ("captions", "image.txt", f"number {i}".encode()),
        ):
            (tmp_path / tree_name / f"{i:03d}").mkdir(parents=True)
            (tmp_path / tree_name / f"{i:03d}" / name).write_bytes(content)
    found = find(str(tmp_path)).pairs
    assert [p.captions for p in found] == [(f"number {i}",) for i in range(60)]
