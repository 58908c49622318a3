"""Preparing data: round trip, split, and what happens when something is wrong."""

import json
import os

import pytest

np = pytest.importorskip("numpy")

from hpctrain.errors import DataError  # noqa: E402
from hpctrain.train.prepare import PrepareRequest, prepare_data  # noqa: E402
from hpctrain.train.shards import (  # noqa: E402
    TRAIN,
    VALIDATION,
    Windows,
    find_damage,
    open_data,
    read_index,
)
from hpctrain.train.sources import (  # noqa: E402
    MAX_PIECE_BYTES,
    STDLIB,
    choose_validation,
    cut_documents,
    find_sources,
)


def write_texts(folder, count=30, lines=40):
    folder.mkdir()
    for number in range(count):
        text = "".join(f"file {number} line {line}\n" for line in range(lines))
        (folder / f"text-{number:02d}.txt").write_text(text)
    return folder


def read_tokens(folder, split):
    shards = read_index(folder).splits[split].shards
    return b"".join((folder / shard.file).read_bytes() for shard in shards)


@pytest.fixture
def request_(tmp_path):
    source = write_texts(tmp_path / "source")
    return PrepareRequest(
        sources=(str(source),), out=tmp_path / "out", validation_fraction=0.1, shard_bytes=2048
    )


def change(request, **values):
    fields = {name: getattr(request, name) for name in request.__dataclass_fields__}
    return PrepareRequest(**{**fields, **values})


def test_every_document_comes_back_once(request_, tmp_path):
    prepared = prepare_data(request_)
    assert prepared.made
    written = []
    for split in (TRAIN, VALIDATION):
        tokens = read_tokens(request_.out, split)
        assert len(tokens) == prepared.index.splits[split].tokens
        assert tokens.endswith(b"\0")
        documents = tokens[:-1].split(b"\0")
        assert len(documents) == prepared.index.splits[split].documents
        written += documents
    # So few files are cut into pieces: put them together again by what they say.
    originals = sorted(path.read_bytes() for path in (tmp_path / "source").iterdir())
    assert sorted(b"".join(written).splitlines()) == sorted(b"".join(originals).splitlines())
    assert 0 < prepared.index.splits[VALIDATION].tokens <= 0.1 * 1.1 * sum(map(len, originals))


def test_shards_are_no_larger_than_asked_for_and_intact(request_):
    index = prepare_data(request_).index
    shards = index.splits[TRAIN].shards
    assert len(shards) > 2
    assert all(shard.size_bytes == 2048 for shard in shards[:-1])
    assert find_damage(request_.out, index, checksums=True) == []
    assert open_data(request_.out) == index


def test_windows_cut_each_shard_without_running_over_its_end(request_):
    index = prepare_data(request_).index
    windows = Windows(request_.out, index, TRAIN, seq_len=100)
    rows = windows.read(np.arange(len(windows)))
    assert rows.shape == (len(windows), 101)
    assert rows.dtype == np.int64
    expected = []
    for shard in index.splits[TRAIN].shards:
        tokens = np.frombuffer((request_.out / shard.file).read_bytes(), dtype=np.uint8)
        expected += [tokens[s : s + 101] for s in range(0, len(tokens) - 100, 100)]
    assert np.array_equal(rows, np.array(expected))


def test_the_same_request_finds_it_there_and_touches_nothing(request_):
    prepare_data(request_)
    before = {path.name: path.stat().st_mtime_ns for path in request_.out.iterdir()}
    again = prepare_data(request_)
    assert not again.made
    assert before == {path.name: path.stat().st_mtime_ns for path in request_.out.iterdir()}


def test_the_same_request_elsewhere_makes_the_same_bytes(request_, tmp_path):
    one = prepare_data(request_).index
    other = prepare_data(change(request_, out=tmp_path / "other")).index
    assert one.digest == other.digest
    assert prepare_data(change(request_, out=tmp_path / "third", seed=1)).index.digest != one.digest


def test_another_request_is_refused_and_force_replaces(request_, tmp_path):
    prepare_data(request_)
    other = change(request_, seed=5)
    with pytest.raises(DataError, match=r"another request: seed was 0, got 5.*--force"):
        prepare_data(other)
    assert prepare_data(change(other, force=True)).made
    assert read_index(request_.out).request["seed"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_text_of_equal_size_takes_force(request_, tmp_path):
    one = prepare_data(request_).index
    path = tmp_path / "source" / "text-03.txt"
    path.write_text(path.read_text().upper())
    assert not prepare_data(request_).made
    assert prepare_data(change(request_, force=True)).index.digest != one.digest


def test_a_grown_source_is_another_request(request_, tmp_path):
    prepare_data(request_)
    with (tmp_path / "source" / "text-03.txt").open("a") as stream:
        stream.write("more\n")
    with pytest.raises(DataError, match="another request"):
        prepare_data(request_)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours_is_never_replaced(request_, force):
    request_.out.mkdir()
    precious = request_.out / "thesis.txt"
    precious.write_text("years of work")
    with pytest.raises(DataError, match="is not a folder of prepared data"):
        prepare_data(change(request_, force=force))
    assert precious.read_text() == "years of work"


def test_a_damaged_folder_of_the_same_request_is_made_again(request_):
    index = prepare_data(request_).index
    (request_.out / index.splits[TRAIN].shards[0].file).unlink()
    assert prepare_data(request_).made
    assert find_damage(request_.out, index, checksums=True) == []


def test_a_failure_half_way_leaves_nothing(request_, tmp_path):
    def stop(done_bytes, total_bytes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_data(request_, stop)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_truncated_and_changed_shards_are_found(request_):
    index = prepare_data(request_).index
    first, second, third = (request_.out / shard.file for shard in index.splits[TRAIN].shards[:3])
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    third.unlink()
    with pytest.raises(DataError) as caught:
        open_data(request_.out)
    assert len(caught.value.messages) == 2
    assert "got 2047 bytes; expected 2048" in str(caught.value)
    assert "No such file" in str(caught.value)
    assert sum("sha256" in m for m in find_damage(request_.out, index, checksums=True)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.update(schema=2),
        lambda index: index.pop("vocab_size"),
        lambda index: index["splits"].pop("validation"),
        lambda index: index["splits"]["train"]["shards"][0].update(file="../../etc/passwd"),
        lambda index: index.update(dtype="float32"),
    ],
)
def test_a_damaged_index_is_an_error_that_names_it(request_, damage):
    prepare_data(request_)
    path = request_.out / "index.json"
    index = json.loads(path.read_text())
    damage(index)
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"index\.json: damaged index"):
        open_data(request_.out)


def test_an_index_that_is_no_json_and_one_that_is_absent(request_, tmp_path):
    prepare_data(request_)
    (request_.out / "index.json").write_text("{")
    with pytest.raises(DataError, match="damaged index"):
        open_data(request_.out)
    with pytest.raises(DataError, match="holds no prepared data"):
        open_data(tmp_path / "absent")


HOSTILE = ["two\nlines.txt", "; echo $(id) `id`.txt", '\'"quotes".txt', "-rf.txt", "ü … 語.txt"]


@pytest.mark.parametrize("name", [*HOSTILE, os.fsdecode(b"not-utf8-\xff.txt")])
def test_hostile_file_names_are_only_names(tmp_path, name):
    folder = tmp_path / "source"
    folder.mkdir()
    try:
        (folder / name).write_bytes(b"some text\n" * 2000)
    except OSError:
        pytest.skip("this file system does not take the name")
    out = tmp_path / "out"
    request = PrepareRequest(sources=(str(folder / name), str(folder)), out=out)
    assert prepare_data(request).made
    assert not prepare_data(request).made
    assert open_data(out).splits[TRAIN].tokens > 30000
    with pytest.raises(DataError) as caught:
        find_sources([str(tmp_path / "absent" / name)])
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


def test_every_missing_source_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        find_sources([str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), str(tmp_path / "empty")])
    assert [m.count("no such file") for m in caught.value.messages] == [1, 1, 0]
    assert "holds no text file" in caught.value.messages[2]


def test_empty_files_and_unknown_tokenizers_are_errors(tmp_path):
    (tmp_path / "empty.txt").touch()
    request = PrepareRequest(sources=(str(tmp_path / "empty.txt"),), out=tmp_path / "out")
    with pytest.raises(DataError, match="every file is empty"):
        prepare_data(request)
    with pytest.raises(DataError, match=r"got 'byte'; expected .*Did you mean 'bytes'"):
        prepare_data(change(request, tokenizer="byte"))


def test_any_bytes_are_text_and_zero_ends_documents_alone(tmp_path):
    path = tmp_path / "blob.txt"
    path.write_bytes(bytes(range(256)))
    request = PrepareRequest(sources=(str(path),), out=tmp_path / "out", validation_fraction=0.0)
    prepare_data(request)
    assert read_tokens(tmp_path / "out", TRAIN) == bytes(range(1, 256)) + b"\0"
    assert read_tokens(tmp_path / "out", VALIDATION) == b""


def test_one_file_is_cut_at_line_ends_so_that_a_part_validates(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(b"".join(b"line %d of a book\n" % n for n in range(20000)))
    files = find_sources([str(path)])
    documents = cut_documents(files)
    text = path.read_bytes()
    assert 50 < len(documents) < 250
    assert all(text[document.end - 1 : document.end] == b"\n" for document in documents)
    assert [d.start for d in documents[1:]] == [d.end for d in documents[:-1]]
    assert documents[-1].end == len(text)
    chosen = choose_validation(documents, 0.02, seed=0)
    assert 0 < sum(documents[place].size_bytes for place in chosen) <= 0.02 * len(text)


def test_pieces_are_bounded_even_without_line_ends(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number}.txt").write_bytes(b"x")
    (folder / "large.txt").write_bytes(b"x" * (3 * MAX_PIECE_BYTES))
    documents = cut_documents(find_sources([str(folder)]))
    assert sum(document.size_bytes for document in documents) == 100 + 3 * MAX_PIECE_BYTES
    assert max(document.size_bytes for document in documents) < 1.1 * MAX_PIECE_BYTES


def test_hidden_files_and_dangling_links_are_left_out(tmp_path):
    folder = write_texts(tmp_path / "source", count=2)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / ".hidden").write_text("secret")
    (folder / "nowhere").symlink_to(tmp_path / "absent")
    assert [file.name for file in find_sources([str(folder)])] == ["text-00.txt", "text-01.txt"]


def test_the_standard_library_is_enough_real_text():
    files = find_sources([STDLIB])
    assert files == find_sources([STDLIB])
    assert sum(file.size_bytes for file in files) > 5_000_000
    assert all(file.name.endswith(".py") and "site-packages" not in file.path for file in files)
