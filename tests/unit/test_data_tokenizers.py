"""Subwords: the same from the same text, kept with the data, and text again afterwards."""

import json
import sys

import pytest
import tiers

tiers.require("tokenizers")
np = pytest.importorskip("numpy")

from hpctrain.errors import BuildError, DataError  # noqa: E402
from hpctrain.train import encode  # noqa: E402
from hpctrain.train.prepare import PrepareRequest, prepare_data  # noqa: E402
from hpctrain.train.shards import TRAIN, VALIDATION, find_damage, read_index  # noqa: E402
from hpctrain.train.tokenizer import END_TOKEN, learn_bpe, tokenizer_of  # noqa: E402

TEXT = "".join(
    f"def f{n}(x): return x + {n}  # größer als {n} … {END_TOKEN}\n" for n in range(3000)
)


@pytest.fixture
def ask(tmp_path):
    """Return a function that prepares one text."""
    (tmp_path / "text.py").write_text(TEXT)

    def prepare(out="out", **fields):
        fields = {"tokenizer": "bpe", "validation_fraction": 0.1, **fields}
        request = PrepareRequest(sources=(str(tmp_path / "text.py"),), out=tmp_path / out, **fields)
        return prepare_data(request)

    return prepare


def tokens_of(folder, split):
    index = read_index(folder)
    return np.concatenate(
        [np.fromfile(folder / s.file, dtype=index.dtype) for s in index.splits[split].shards]
    )


def test_text_comes_back_from_the_folder_alone(ask, tmp_path):
    index = ask(vocab_size=600).index
    assert (index.tokenizer, index.vocab_size, index.dtype) == ("bpe", 600, "uint16")
    tokenizer = tokenizer_of(tmp_path / "out", index)
    texts = []
    for split in (TRAIN, VALIDATION):
        tokens = tokens_of(tmp_path / "out", split)
        assert tokens.max() < 600
        (ends,) = np.nonzero(tokens == index.separator)
        # A name that stands in the text ends no document.
        assert len(ends) == index.splits[split].documents
        assert ends[-1] == len(tokens) - 1
        texts += [tokenizer.decode(part[part != index.separator].tolist())
                  for part in np.split(tokens, ends)]  # fmt: skip
    lines = b"".join(texts).decode().splitlines(keepends=True)
    assert sorted(lines) == sorted(TEXT.splitlines(keepends=True))
    assert sum(split.tokens for split in index.splits.values()) < len(TEXT.encode()) / 2


def test_the_same_request_elsewhere_makes_the_same_bytes(ask, tmp_path):
    one, other = ask(vocab_size=500).index, ask("other", vocab_size=500).index
    assert one.digest == other.digest
    assert one.tokenizer_file == other.tokenizer_file
    assert one.tokenizer_file.sha256 != ask("third", vocab_size=501).index.tokenizer_file.sha256
    assert not ask(vocab_size=500).made


def test_batches_do_not_show(ask, monkeypatch):
    one = ask(vocab_size=500).index
    monkeypatch.setattr(encode, "BATCH_BYTES", 1)
    assert ask("other", vocab_size=500).index.digest == one.digest


def test_a_small_text_gives_fewer_tokens_than_the_default(ask):
    index = ask().index
    assert 257 < index.vocab_size < 50257
    assert index.request["vocab_size"] == 50257


def test_a_tokenizers_file_makes_the_same_tokens(ask, tmp_path):
    learned = ask(vocab_size=600).index
    file = tmp_path / "mine.json"
    file.write_bytes((tmp_path / "out" / "tokenizer.json").read_bytes())
    index = ask("other", tokenizer=str(file)).index
    assert (index.tokenizer, index.digest) == ("mine.json", learned.digest)
    file.write_text(file.read_text().replace(END_TOKEN, "<|finis|>"))
    with pytest.raises(DataError, match="another request: tokenizer_sha256 was"):
        ask("other", tokenizer=str(file), end_token="<|finis|>")
    with pytest.raises(DataError, match=r"mine\.json: has no token that ends a document"):
        ask("third", tokenizer=str(file))
    assert ask("third", tokenizer=str(file), end_token="<|finis|>").index.separator == 0
    assert tokenizer_of(tmp_path / "third", read_index(tmp_path / "third")).separator == 0


def test_large_vocabularies_take_four_bytes(ask, tmp_path):
    ask(vocab_size=300)
    content = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    content["model"]["vocab"]["quite_rare"] = 70_000
    (tmp_path / "large.json").write_text(json.dumps(content))
    index = ask("large", tokenizer=str(tmp_path / "large.json")).index
    assert (index.dtype, index.vocab_size) == ("uint32", 70_001)


def test_a_damaged_tokenizer_is_found(ask, tmp_path):
    index = ask(vocab_size=300).index
    path = tmp_path / "out" / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"}", b"]", 1))
    assert find_damage(tmp_path / "out", index) == []
    (problem,) = find_damage(tmp_path / "out", index, checksums=True)
    assert "tokenizer.json: damaged, got sha256" in problem
    path.unlink()
    assert "tokenizer.json: cannot be read" in find_damage(tmp_path / "out", index)[0]
    with pytest.raises(DataError, match=r"tokenizer\.json: cannot be read"):
        tokenizer_of(tmp_path / "out", index)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokenizer": "bytes", "vocab_size": 300}, "--vocab-size: only bpe is learned to a size"),
        ({"vocab_size": 256}, "--vocab-size: too small, got 256; expected at least 257"),
        ({"end_token": "</s>"}, "--end-token: is for a tokenizers file"),
        ({"tokenizer": "bpa"}, "got 'bpa'; expected bytes, bpe or .*Did you mean 'bpe'"),
        ({"json_field": "text"}, r"--json-field: is for lines of JSON, .* no \*\.jsonl file"),
    ],
)
def test_settings_that_do_not_go_together_are_errors(ask, fields, message):
    with pytest.raises(DataError, match=message):
        ask(**fields)


def test_a_file_that_is_no_tokenizer_is_an_error(ask, tmp_path):
    with pytest.raises(DataError, match=r"text\.py: no tokenizers file: .*tokenizer\.json"):
        ask(tokenizer=str(tmp_path / "text.py"))


def test_bytes_become_the_text_again(ask, tmp_path):
    tokenizer = tokenizer_of(tmp_path / "out", ask(tokenizer="bytes").index)
    assert tokenizer.decode(tokenizer.encode(TEXT.encode()).tolist()) == TEXT.encode()


def test_without_the_library_the_error_names_the_command(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BuildError, match=r"tokenizers: cannot be imported.*pip install"):
        ask()
    assert ask(tokenizer="bytes").made


def test_what_is_no_utf8_becomes_the_replacement_character():
    tokenizer = learn_bpe([b"some text"], 300)
    tokens = tokenizer.encode(b"a\xffb\0")
    assert tokenizer.decode(tokens.tolist()) == "a\ufffdb\0".encode()
    assert [len(t) for t in tokenizer.encode_all([b"", b"a"])] == [0, 1]


def test_progress_counts_learning_and_encoding(ask, tmp_path, monkeypatch):
    seen = []
    request = PrepareRequest(
        sources=(str(tmp_path / "text.py"),), out=tmp_path / "out", tokenizer="bpe"
    )
    prepare_data(request, lambda done_bytes, total_bytes: seen.append((done_bytes, total_bytes)))
    assert seen == sorted(seen)
    ((_, total_bytes),) = {(0, total) for _, total in seen}
    assert seen[-1][0] == total_bytes > 1.9 * len(TEXT.encode())


def test_learning_reads_evenly_and_no_more_than_its_limit(monkeypatch):
    from hpctrain.train.sources import Document, SourceFile

    documents = [Document(SourceFile("a", "a", 1000), n, n + 10) for n in range(0, 1000, 10)]
    assert encode.choose_learning(documents, {0, 1}) == documents[2:]
    monkeypatch.setattr(encode, "LEARN_BYTES", 100)
    chosen = encode.choose_learning(documents, {0})
    assert len(chosen) == 10
    assert chosen[-1].start > 800
