"""Rows of numbers while they grow."""

import json
import os

from tessera.store.metrics import Followed, read_rows, write_rows


def line(step: int) -> str:
    return json.dumps({"step": step}) + "\n"


def test_each_look_reads_only_what_is_new(tmp_path, monkeypatch):
    file = tmp_path / "metrics.jsonl"
    followed = Followed(file)
    assert followed.look() == [], "before the file exists"
    file.write_text(line(1) + line(2) + '{"st')
    assert followed.look() == [{"step": 1}, {"step": 2}], "the third is still being written"
    parsed = []
    loads = json.loads
    monkeypatch.setattr("tessera.store.metrics.json.loads", lambda text: parsed.append(text) or loads(text))
    with file.open("a") as more:
        more.write('ep": 3}\n{damaged\n' + line(4))
    assert followed.look() == [{"step": i} for i in (1, 2, 3, 4)]
    assert followed.look() == read_rows(file)
    assert [text for text in parsed if text == b'{"step": 1}'] == [b'{"step": 1}'], "read_rows alone read it again"


def test_a_file_that_was_replaced_or_cut_is_read_anew(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write_rows(file, [{"step": i} for i in range(5)])
    followed = Followed(file)
    assert len(followed.look()) == 5
    write_rows(file, [{"step": 9}] * 7)  # a resumed run forgets rows so
    assert followed.look() == [{"step": 9}] * 7
    os.truncate(file, len(line(9)))
    assert followed.look() == [{"step": 9}]
