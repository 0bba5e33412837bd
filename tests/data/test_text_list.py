"""Files of labels and texts, in every form in which people keep them."""

import io
import types

import pytest

from siglip_jax.data.text_list import read_lines, read_text_list


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "a dog\na cat\n"),
        ("l.txt", "\ufeffa dog\r\n\r\n  a cat "),
        ("l.txt", "a dog\ra cat\r"),
        ("l", '["a dog", "a cat"]'),
        ("l.txt", '\ufeff[\n"a dog",\n"a cat"]'),
        ("l.json", '{"1": "a cat", "0": "a dog"}'),
        ("config.json", '{"model_type": "x", "id2label": {"10": "a cat", "9": "a dog"}}'),
        ("l.yaml", "0: a dog\n1: a cat\n"),
        ("l.yml", "- a dog\n- a cat\n"),
        ("data.yaml", "train: images\nnames:\n  0: a dog\n  1: a cat\n"),
        ("l.csv", "id,name\n0,a dog\n1,a cat\n"),
        ("l.csv", "label\na dog\na cat\n"),
        ("l.csv", "a dog\na cat\n"),
        ("l.csv", "id;Label\n0;a dog\n1;a cat\n"),
        ("l.tsv", "id\tcaption\n0\ta dog\n1\ta cat\n"),
        ("l.jsonl", '"a dog"\n"a cat"\n'),
        ("l.jsonl", '{"id": 0, "text": "a dog"}\n{"id": 1, "text": "a cat"}\n'),
    ],
)
def test_forms(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert read_text_list(str(tmp_path / name)) == ["a dog", "a cat"]


def test_only_line_breaks_end_a_line(tmp_path, monkeypatch):
    path = tmp_path / "l.txt"
    content = "a\u2028b\nc\x85d\ne\x0bf\x0cg\n[UNK]\n{a}\n"
    path.write_bytes(content.encode())
    expected = ["a\u2028b", "c\x85d", "e\x0bf\x0cg", "[UNK]", "{a}"]
    assert read_text_list(str(path)) == read_lines(str(path)) == expected
    stdin = types.SimpleNamespace(buffer=io.BytesIO(b"\xef\xbb\xbfa dog\r\na cat"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert read_text_list("-") == ["a dog", "a cat"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"caf\xe9", "l.txt: not UTF-8 text"),
        ("l.txt", b"\n \n", "l.txt: expected one text a line, got none"),
        ("l.json", b"[]", "l.json: expected one text a line, got none"),
        ("l.json", b"[1", "l.json: not JSON: "),
        ("l.json", b"[" * 100_000, "l.json: not JSON: "),
        ("l.json", b'["a", 7]', "l.json: text 2 of 2 is 7, not a string; put it in quotation"),
        ("l.json", b'["a", ""]', "l.json: text 2 of 2 is empty"),
        ("l.json", b'{"cat": 1}', "l.json: expected a list, numbers with names, .* the keys cat$"),
        ("l.json", b"3", "l.json: expected a list of strings, got int"),
        ("l.yaml", b"- yes\n- no\n", "l.yaml: text 1 of 2 is True, not a string"),
        ("l.yaml", b"a: [", "l.yaml: not YAML: "),
        ("l.csv", b"id,title2\n0,a\n", "no column label, .* or text; the columns are id, title2"),
        ("l.csv", b"id,name\n0,a\n1\n", "l.csv: text 2 of 2 is empty"),
        ("l.jsonl", b'{"id": 0, "x": "a"}\n', "l.jsonl, line 1: no column label"),
        ("missing.txt", None, "missing.txt: no such file or folder"),
    ],
)
def test_what_is_no_list(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_text_list(str(tmp_path / name))
    assert "\n" not in str(caught.value)
