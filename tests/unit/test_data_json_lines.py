"""Lines of JSON: each is a document, and a broken one is named by its number."""

import json

import pytest

np = pytest.importorskip("numpy")

from hpctrain.errors import DataError  # noqa: E402
from hpctrain.train.prepare import PrepareRequest, prepare_data  # noqa: E402
from hpctrain.train.shards import TRAIN, VALIDATION, read_index  # noqa: E402
from hpctrain.train.texts import MAX_BROKEN_LINES  # noqa: E402


def prepare(path, out, **fields):
    return prepare_data(PrepareRequest(sources=(str(path),), out=out, **fields))


def documents_of(folder):
    documents = []
    for split in (TRAIN, VALIDATION):
        for shard in read_index(folder).splits[split].shards:
            documents += (folder / shard.file).read_bytes()[:-1].split(b"\0")
    return documents


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "texts.jsonl"
    texts = [f'text {n}\nwith "lines" and größe {"x" * (n % 300)}' for n in range(2000)]
    path.write_text("".join(json.dumps({"id": n, "text": t}) + "\n" for n, t in enumerate(texts)))
    return path, texts


def test_each_line_is_a_document(lines, tmp_path):
    path, texts = lines
    index = prepare(path, tmp_path / "out", validation_fraction=0.1).index
    assert sorted(documents_of(tmp_path / "out")) == sorted(text.encode() for text in texts)
    assert sum(split.documents for split in index.splits.values()) == 2000
    assert 100 < index.splits[VALIDATION].documents < 300


def test_no_line_is_cut_however_long(tmp_path):
    path = tmp_path / "long.jsonl"
    texts = ["a" * 3_000_000, "b", "c" * 200_000]
    path.write_text("\n\n".join(json.dumps({"text": text}) for text in texts))
    prepare(path, tmp_path / "out")
    assert sorted(documents_of(tmp_path / "out")) == sorted(text.encode() for text in texts)


def test_the_field_has_any_name(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"the text-field": "one"}\n{"the text-field": "two", "text": 3}\n')
    index = prepare(path, tmp_path / "out", json_field="the text-field").index
    assert sum(split.documents for split in index.splits.values()) == 2
    with pytest.raises(DataError, match="json_field was 'the text-field', got 'text'"):
        prepare(path, tmp_path / "out")


BROKEN = {
    3: b"{not json",
    500: b'{"id": 1}',
    1001: b'{"text": 5}',
    1500: b'["text"]',
    1999: b'{"text": "\xff"}',
}


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_every_broken_line_is_named_with_its_number(lines, tmp_path, tokenizer):
    if tokenizer == "bpe":
        pytest.importorskip("tokenizers")
    path, _ = lines
    content = path.read_bytes().split(b"\n")
    for number, line in BROKEN.items():
        content[number - 1] = line
    path.write_bytes(b"\n".join(content))
    with pytest.raises(DataError) as caught:
        prepare(path, tmp_path / "out", tokenizer=tokenizer, validation_fraction=0.0)
    assert [m.split(": ")[0] for m in caught.value.messages] == [f"{path}:{n}" for n in BROKEN]
    assert "missing required field 'text'" in caught.value.messages[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_after_many_broken_lines_it_stops(tmp_path, tokenizer):
    if tokenizer == "bpe":
        pytest.importorskip("tokenizers")
    path = tmp_path / "plain.jsonl"
    path.write_text("no json at all\n" * 5000)
    with pytest.raises(DataError) as caught:
        prepare(path, tmp_path / "out", tokenizer=tokenizer)
    assert len(caught.value.messages) == MAX_BROKEN_LINES + 1
    assert "there may be more" in caught.value.messages[-1]


def test_compressed_files_are_refused(tmp_path):
    for name in ("a.jsonl.gz", "b.txt.zst", "c.txt"):
        (tmp_path / name).write_bytes(b"some bytes")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, tmp_path / "out")
    assert len(caught.value.messages) == 2
    assert "is compressed; expected plain text or .jsonl" in caught.value.messages[0]
