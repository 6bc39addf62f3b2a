"""Models as people really have them, from public reports: input, command, what must come of it."""

import json
import re
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pytest
from conftest import GOLDEN
from hypothesis import given, settings
from safetensors.numpy import load_file, save_file

import bert_toolkit
import extract_features
import run_classifier
import run_pretraining
from bert_toolkit.checkpoints import checkpoint_files, hugging_face, task_file
from bert_toolkit.commands import convert_checkpoint, export_model, extend_vocab
from bert_toolkit.errors import UserError
from bert_toolkit.options import ModelOptions
from bert_toolkit.problems import MULTI, REGRESSION, SINGLE, Problem
from bert_toolkit.text import tokenizer_config, tokenizer_rules
from modeling import BertConfig
from tokenization import AddedToken, FullTokenizer

ENTRIES = (GOLDEN / "vocab.txt").read_text().split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(autouse=True)
def _logs(caplog):
    caplog.set_level("INFO")


# --- Directories in Hugging Face's layout ---


def added(content, number=None, **flags):
    """An entry of `added_tokens` in a tokenizer.json."""
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}  # fmt: skip
    return {"id": ENTRIES.index(content) if number is None else number, "content": content, **usual, **flags}  # fmt: skip


def tokenizer_json(normalizer=(), tokens=(), limit=100):
    """A tokenizer.json of the golden vocabulary, as transformers writes it."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*map(added, SPECIAL), *tokens],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
            **dict(normalizer),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": limit,
            "vocab": {token: number for number, token in enumerate(ENTRIES)},
        },
    }


def write_files(directory, contents):
    directory.mkdir(exist_ok=True)
    for name, content in contents.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / name).write_text(text)
    return directory


VOCAB_TXT = {"config.json": {}, "vocab.txt": (GOLDEN / "vocab.txt").read_text()}


def rules_of(directory):
    vocab_file = next(
        directory / name for name in tokenizer_config.VOCABULARIES if (directory / name).exists()
    )
    return tokenizer_rules.rules(ModelOptions(), str(vocab_file)), str(vocab_file)


def ids_of(directory, text):
    rules, vocab_file = rules_of(directory)
    return rules.tokenizer(vocab_file).encode(text)


@pytest.fixture
def hf_model(tmp_path):
    """A function (name, heads, problem) -> directory of the golden model in Hugging Face's layout."""

    def make(name="theirs", wanted="bert/", problem=None, outputs=0, vocab_size=4000):
        weights = checkpoint_files.read(str(GOLDEN / "model/bert_model.ckpt"))
        weights = {name: value for name, value in weights.items() if name.startswith(wanted)}
        table = "bert/embeddings/word_embeddings"
        weights[table] = np.resize(weights[table], [vocab_size, 32])
        rng = np.random.RandomState(1)
        if outputs:
            weights["output_weights"] = rng.randn(outputs, 32).astype(np.float32)
            weights["output_bias"] = rng.randn(outputs).astype(np.float32)
        config = BertConfig.from_json_file(str(GOLDEN / "model/bert_config.json"))
        config.vocab_size = vocab_size
        directory = tmp_path / name
        hugging_face.write(
            str(directory),
            config,
            weights,
            str(GOLDEN / "vocab.txt"),
            tokenizer_rules.Rules(),
            problem,
        )
        (directory / "tokenizer_config.json").unlink()
        return directory

    return make


# --- Tokenizers ---


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        ({}, "the [MASK]", ["the", "[MASK]"]),
        ({}, "w" * 101 + " " + "a" * 100, ["[UNK]", *["a"], *["##a"] * 99]),
        ({}, "the\ue000 god", ["the", "god"]),
        ({"added_tokens.json": {"cool-token": 4000, "<user>": 4001}}, "COOL-token<user>s", ["cool-token", "<user>", "s"]),
        ({"added_tokens.json": {"<USER>": 4000}, "special_tokens_map.json": {"additional_special_tokens": ["<USER>"]}}, "<USER><user>", ["<USER>", "<", "us", "##er", ">"]),
        ({"tokenizer_config.json": {"do_lower_case": False, "added_tokens_decoder": {"4000": {"content": "X!", "special": True}}}}, "aX!a", ["a", "X!", "a"]),
        ({"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "additional_special_tokens": ["god"]}}, "ungodly", ["un", "god", "l", "##y"]),
    ],
)  # fmt: skip
def test_tokens_that_are_whole(tmp_path, files, text, expected):
    directory = write_files(tmp_path / "d", {**VOCAB_TXT, **files})
    rules, vocab_file = rules_of(directory)
    tokenizer = rules.tokenizer(vocab_file)
    assert tokenizer.tokenize(text) == expected
    assert tokenizer.tokenize_with_offsets(text)[0] == expected
    # The same directory in Google's layout has the published rules.
    google = write_files(tmp_path / "g", {"bert_config.json": {}, "vocab.txt": VOCAB_TXT["vocab.txt"]})  # fmt: skip
    assert rules_of(google)[0] == tokenizer_rules.Rules()
    assert "[MASK]" not in FullTokenizer(str(google / "vocab.txt")).tokenize("[MASK]")


BERT = {"tokenizer_class": "BertTokenizer"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config.json": {"tokenizer_class": "BertJapaneseTokenizer"}}, "tokenizer_config.json: tokenizer_class is 'BertJapaneseTokenizer'; expected BertTokenizer"),
        ({"tokenizer_config.json": {"word_tokenizer_type": "mecab"}}, 'word_tokenizer_type is "mecab"; expected "basic"'),
        ({"tokenizer_config.json": {"subword_tokenizer_type": "character"}}, 'is "character"; expected "wordpiece"'),
        ({"tokenizer_config.json": {**BERT, "do_basic_tokenize": False}}, "do_basic_tokenize is false; expected true"),
        ({"tokenizer_config.json": {**BERT, "clean_text": False}}, "clean_text is false; expected true"),
        ({"special_tokens_map.json": {"unk_token": "<unk>"}}, r"special_tokens_map.json: unk_token is '<unk>'; expected \[UNK\]"),
        ({"tokenizer_config.json": {**BERT, "cls_token": {"content": "<s>"}}}, r"cls_token is '<s>'; expected \[CLS\]"),
        ({"tokenizer_config.json": {**BERT, "additional_special_tokens": ["<new>"]}}, "the special token '<new>' has no id"),
        ({"added_tokens.json": {"god": 4000}}, "added_tokens.json: the added token 'god' has the id 4000; expected"),
        ({"added_tokens.json": {"<new>": 7}}, "'.*' and the added token '<new>' have the same id 7"),
        ({"tokenizer_config.json": "[]x"}, "tokenizer_config.json: not a JSON object"),
        ({"tokenizer.json": tokenizer_json(tokens=[added("x", 4000, single_word=True)])}, "the added token 'x' has single_word true"),
        ({"tokenizer.json": tokenizer_json() | {"normalizer": None}}, "its normalizer is None; expected BertNormalizer"),
        ({"tokenizer.json": tokenizer_json() | {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}}}, "its normalizer is Sequence of NFD, Lowercase; expected"),
        ({"tokenizer.json": tokenizer_json([("clean_text", False)])}, "clean_text of its normalizer is false"),
        ({"tokenizer.json": tokenizer_json() | {"pre_tokenizer": {"type": "Whitespace"}}}, "its pre_tokenizer is Whitespace; expected BertPreTokenizer"),
        ({"tokenizer.json": tokenizer_json() | {"model": {"type": "BPE"}}}, 'the type of its model is "BPE"; expected WordPiece'),
        ({"tokenizer.json": tokenizer_json() | {"post_processor": {"type": "RobertaProcessing"}}}, "its post_processor is RobertaProcessing"),
        ({"tokenizer.json": tokenizer_json(), "tokenizer_config.json": {**BERT, "do_lower_case": False}}, "do_lower_case is true in it, but .*tokenizer_config.json says false"),
        ({"tokenizer.json": tokenizer_json(), "vocab.txt": "\n".join(["x", *ENTRIES[1:]])}, r"the id of '\[PAD\]' is None, but 0 in .*tokenizer.json"),
    ],
)  # fmt: skip
def test_tokenizers_that_are_not_ours(tmp_path, files, message):
    directory = write_files(tmp_path / "d", {**VOCAB_TXT, **files})
    with pytest.raises(UserError, match=message):
        rules_of(directory)


UNTOUCHED = {"normalized": False, "special": False}
NORMALIZED = {"normalized": True, "special": False}
DIRECTORIES = {
    "usual": tokenizer_json(),
    "cased": tokenizer_json({"lowercase": False}),
    "cased without accents": tokenizer_json({"lowercase": False, "strip_accents": True}),
    "accents": tokenizer_json({"strip_accents": False}),
    "ideographs together": tokenizer_json({"handle_chinese_chars": False}),
    "words of 20": tokenizer_json(limit=20),
    "words of 200": tokenizer_json(limit=200),
    "added": tokenizer_json(tokens=[added("cool-token", 4000, **NORMALIZED), added("<user>", 4001, **NORMALIZED)]),
    "added as written": tokenizer_json(tokens=[added("<USER>", 4000), added("god", **UNTOUCHED), added("\u00dcnder", 4001, **NORMALIZED)]),
    "added to a cased one": tokenizer_json({"lowercase": False}, [added("Cool-Token", 4000, **NORMALIZED), added("<user>", 4001), added("\u4e2d\u6587", 4002, **NORMALIZED), added("the", **NORMALIZED)]),
    "added in two ways": tokenizer_json(tokens=[added("<user>", 4000), added("<User>", 4001, **NORMALIZED), added("New York", 4002, **NORMALIZED)]),
    "added with accents": tokenizer_json({"strip_accents": False}, [added("\u00c9", 4000, **NORMALIZED), added("e\u0301", 4001, **UNTOUCHED)]),
    "no special token in text": tokenizer_json() | {"added_tokens": []},
}  # fmt: skip

WORDS = [
    *SPECIAL, "the", "God", "[mask]", "cool-token", "Cool-Token", "<user>", "<USER>", "<User>", "New York", "new  york",
    "\u00dcnder", "under", "\u4e2d\u6587", "\u00c9", "e\u0301", "a" * 21, "b" * 101, "ab" * 101, "\u039f\u0394\u039f\u03a3 ", " ", " ",
]  # fmt: skip
CHARACTERS = (
    "aB.,!$\u00e9\u0130\u0131\u03a3\u03c2\u1e9e\u4e2d\u3042\ud55c\U0001f600\u0301\u0327\u200b\u200d\ufeff\u2028\u2029\u00a0"
    "\u3000\0\ufffd\x0b\x1c\x85\t\n\r \u2014\u00bf\u0e01\ufb01\u212a\U0002f800\U0002b820\U0002b920\u0378\ue000\U000f0000"
)


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """Name -> (the tokenizer of the tokenizers package, ours), of directories of all settings."""
    package = pytest.importorskip("tokenizers")
    found = {}
    for number, (name, content) in enumerate(DIRECTORIES.items()):
        files = {"tokenizer.json": content}
        if not content["added_tokens"]:
            files["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if number % 2:
            files["vocab.txt"] = VOCAB_TXT["vocab.txt"]
        directory = write_files(tmp_path_factory.mktemp("peers") / "d", files)
        rules, vocab_file = rules_of(directory)
        peer = package.Tokenizer.from_file(str(directory / "tokenizer.json"))
        found[name] = peer, rules.tokenizer(vocab_file)
    return found


@pytest.fixture(scope="module")
def known(peers):
    """Characters whose kind has not changed since Unicode 8, which the package's tables are of."""
    peer = peers["cased without accents"][0]
    ours = peers["cased without accents"][1].basic_tokenizer
    found = []
    for char in map(chr, range(0xD800)):
        theirs = peer.pre_tokenizer.pre_tokenize_str(peer.normalizer.normalize_str(f"a{char}b"))
        if [word for word, _ in theirs] == ours.tokenize(f"a{char}b"):
            found.append(char)
    changed = {chr(code) for code in range(0xD800)} - set(found)
    assert len(changed) < 300
    assert {unicodedata.category(char)[0] for char in changed} <= {*"MPSC"}
    assert not changed & set(CHARACTERS)
    return set(found) | set(CHARACTERS)


PIECES = st.sampled_from(WORDS) | st.sampled_from(CHARACTERS) | st.characters(max_codepoint=0xD7FF)


@pytest.mark.parametrize("name", DIRECTORIES)
@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(PIECES, max_size=12))
def test_ids_are_those_of_the_tokenizers_package(peers, known, name, pieces):
    peer, ours = peers[name]
    text = "".join(char for piece in pieces for char in piece if char in known)
    expected = peer.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == expected
    assert ours.encode_ragged([text])[0].tolist() == expected
    tokens, offsets = ours.tokenize_with_offsets(text)
    assert ours.convert_tokens_to_ids(tokens) == expected
    assert all(0 <= start < end <= len(text) for start, end in offsets)


def test_rules_go_with_the_model(tmp_path, hf_model):
    """What conversion and extension write, and the note beside data, give the same ids."""
    text = "Cool-Token the [MASK] \ue000 <user> " + "a" * 101
    theirs = hf_model(vocab_size=4002)
    content = tokenizer_json(tokens=[added("cool-token", 4000, **NORMALIZED), added("<user>", 4001)])  # fmt: skip
    (theirs / "vocab.txt").unlink()
    write_files(theirs, {"tokenizer.json": content})
    expected = ids_of(theirs, text)
    assert expected == [4000, ENTRIES.index("the"), 4, 4001, 1]
    for name, source, to in (("g", "theirs", "google"), ("h", "g", "hugging_face")):
        convert_checkpoint.run(
            convert_checkpoint.Options(
                bert_dir=str(tmp_path / source), output_dir=str(tmp_path / name), to=to
            )
        )
        assert ids_of(tmp_path / name, text) == expected
        assert (tmp_path / name / "vocab.txt").read_text().split() == ENTRIES
    rules, _ = rules_of(theirs)
    assert tokenizer_config.from_note(json.loads(rules.to_json()), tokenizer_rules.Rules()) == rules
    (tmp_path / "words.txt").write_text("zymurgy\n")
    extend_vocab.run(
        extend_vocab.Options(
            bert_dir=str(theirs),
            words_file=str(tmp_path / "words.txt"),
            output_dir=str(tmp_path / "more"),
        )
    )
    assert ids_of(tmp_path / "more", text + " zymurgy") == [*expected, 4002]


def test_published_rules_are_written_as_ever():
    """Notes and directories of Google's models have the keys that they have always had."""
    keys = ["do_lower_case", "strip_accents", "tokenize_chinese_chars", "never_split"]
    assert list(tokenizer_rules.Rules().to_dict()) == keys
    note = {"do_lower_case": False, "never_split": ["[MASK]"]}
    theirs = tokenizer_rules.Rules(added_tokens=(AddedToken("x", 9),), hugging_face=True)
    assert tokenizer_config.from_note(note, theirs) == tokenizer_rules.Rules(
        do_lower_case=False, never_split=("[MASK]",)
    )
    assert tokenizer_config.from_note({}, theirs) == theirs


# --- Casing, and text that is not known ---


@pytest.mark.parametrize(
    ("entries", "lower", "message"),
    [
        (ENTRIES, True, None),
        ([*ENTRIES[:-60], *(word.title() for word in ENTRIES[-60:])], True, "of its .* words have capital letters or accents"),
        ([*ENTRIES[:-60], *(f"{word}\u00e9" for word in ENTRIES[-60:])], True, "capital letters or accents .* but text is lower-cased; for a cased model set do_lower_case to false"),
        ([*ENTRIES[:-60], *(word.title() for word in ENTRIES[-60:])], False, None),
        (ENTRIES, False, "none of its words has a capital letter, but text is not lower-cased"),
        (ENTRIES[:150], False, None),
    ],
)  # fmt: skip
def test_casing_that_does_not_fit_the_vocabulary(tmp_path, caplog, entries, lower, message):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{entry}\n" for entry in entries))
    tokenizer_rules.load(str(path), tokenizer_rules.Rules(do_lower_case=lower))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if message is None:
        assert not warnings
    else:
        (warning,) = warnings
        assert re.search(message, warning)


@pytest.mark.parametrize(
    ("text", "level", "message"),
    [
        ("\U0001f600 \U0001f600\n", "WARNING", "every token is [UNK], so that nothing of the text is left"),
        ("the god the \U0001f600\n", "INFO", "hint: {}: 25 % of tokens are [UNK]"),
        ("the god the god the \U0001f600\n", None, "[UNK]"),
    ],
)  # fmt: skip
def test_text_of_unknown_tokens(tmp_path, model_dir, caplog, text, level, message):
    path = tmp_path / "in.txt"
    path.write_text(text)
    extract_features.run(
        extract_features.Options(
            input_file=str(path),
            output_file=str(tmp_path / "out.jsonl"),
            bert_dir=str(model_dir),
            layers="-1",
        )
    )
    found = [r.levelname for r in caplog.records if message.format(path) in r.getMessage()]
    assert found == ([level] if level else [])


# --- Weights ---


def split_weights(directory):
    """Divides model.safetensors into two files with an index."""
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(weights)
    files = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, directory / file)
        files.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": files}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_several_files(tmp_path, hf_model):
    directory = hf_model()
    whole = checkpoint_files.read(str(directory / "model.safetensors"))
    split_weights(directory)
    for name in ("", "model.safetensors.index.json", "model-00002-of-00002.safetensors"):
        found = checkpoint_files.read(
            checkpoint_files.find(str(directory / name), "init_checkpoint")
        )
        assert found.keys() == whole.keys()
        assert all(np.array_equal(found[key], whole[key]) for key in whole)
    assert bert_toolkit.Encoder(str(directory)).encode(["the word"]).shape == (1, 32)
    (directory / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="index.json lists model-00001-of-00002.safetensors, which"):
        bert_toolkit.Encoder(str(directory))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["pytorch_model.bin"], r"pytorch_model.bin in it is a pickle, .* this command .*: python -c \"import glob, torch"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], r"glob.glob\('.*pytorch_model-\*-of-00002.bin'\)"),
        (["tf_model.h5", "training_args.bin"], "no checkpoint but tf_model.h5 in it; expected"),
    ],
)  # fmt: skip
def test_directories_with_other_weights(hf_model, names, message):
    directory = hf_model()
    (directory / "model.safetensors").unlink()
    for name in names:
        (directory / name).write_bytes(b"x")
    with pytest.raises(UserError, match=message) as caught:
        bert_toolkit.Encoder(str(directory))
    if "python -c" in message:
        compile(str(caught.value).split('python -c "')[1].rstrip('"'), "command", "exec")


def test_a_directory_without_vocab_txt(tmp_path, hf_model):
    directory = hf_model()
    expected = bert_toolkit.Encoder(str(directory)).encode(["the word [MASK] was god"])
    (directory / "vocab.txt").unlink()
    with pytest.raises(UserError, match="no vocab.txt or tokenizer.json in it"):
        bert_toolkit.Encoder(str(directory))
    write_files(directory, {"tokenizer.json": tokenizer_json()})
    found = bert_toolkit.Encoder(str(directory)).encode(["the word [MASK] was god"])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("lines", ["\n", "\n\n"])
def test_empty_lines_at_the_end_of_a_vocabulary(model_dir, lines):
    expected = bert_toolkit.Encoder(str(model_dir)).encode(["the word"])
    with (model_dir / "vocab.txt").open("a") as writer:
        writer.write(lines)
    assert np.array_equal(bert_toolkit.Encoder(str(model_dir)).encode(["the word"]), expected)
    with (model_dir / "vocab.txt").open("a") as writer:
        writer.write("more\n")
    with pytest.raises(UserError, match=r"entries, .* says 4,000: \d more. Use this model's own"):
        bert_toolkit.Encoder(str(model_dir))


# --- Models without a pooler ---

NO_POOLER = ("bert/embeddings", "bert/encoder", "cls/predictions")


@pytest.mark.slow
def test_models_without_a_pooler(tmp_path, hf_model, pretraining_data):
    whole, mlm = hf_model("whole"), hf_model("mlm", NO_POOLER)
    for pooling in ("cls", "mean"):
        vectors = [
            bert_toolkit.Encoder(str(d), pooling=pooling).encode(["the word"]) for d in (whole, mlm)
        ]
        assert np.array_equal(*vectors)
    (tmp_path / "in.txt").write_text("the word\n")
    extract_features.run(
        extract_features.Options(
            input_file=str(tmp_path / "in.txt"),
            output_file=str(tmp_path / "out.npy"),
            bert_dir=str(mlm),
            pooling="mean",
            layers="-1",
        )
    )
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), vectors[0], atol=1e-6)
    export_model.run(
        export_model.Options(bert_dir=str(mlm), output_dir=str(tmp_path / "saved"), with_text=False)
    )
    flags = {"bert_dir": str(mlm), "output_dir": str(tmp_path / "out"), "do_eval": True, "eval_file": str(pretraining_data)}  # fmt: skip
    with pytest.raises(
        UserError,
        match="has no trained cls/seq_relationship/output_weights, which next-sentence prediction"
        " needs; pass --use_next_sentence=false",
    ):
        run_pretraining.run(run_pretraining.Options(**flags))
    found = run_pretraining.run(run_pretraining.Options(**flags, use_next_sentence=False))
    assert found["masked_lm_loss"] > 0
    assert "next_sentence_loss" not in found


def test_a_part_that_is_needed_is_named(tmp_path, hf_model):
    directory = hf_model(wanted=("bert/embeddings", "bert/encoder/layer_0"))
    (tmp_path / "in.txt").write_text("the word\n")
    with pytest.raises(UserError, match="use a checkpoint that has them"):
        extract_features.run(
            extract_features.Options(
                input_file=str(tmp_path / "in.txt"),
                output_file=str(tmp_path / "out.jsonl"),
                bert_dir=str(directory),
                layers="-1",
            )
        )


# --- Classifiers with their labels ---

MOODS = Problem(SINGLE, ("negative", "neutral", "positive"))


def predict(directory, tmp_path, **flags):
    (tmp_path / "in.txt").write_text("the word was god\nwoe\n")
    run_classifier.run(
        run_classifier.Options(
            bert_dir=str(directory),
            output_dir=str(tmp_path / "predicted"),
            predict_file=str(tmp_path / "in.txt"),
            **flags,
        )
    )
    return (tmp_path / "predicted" / "test_predictions.tsv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "labels", "header"),
    [
        ({}, None, ["negative", "neutral", "positive"]),
        ({"problem_type": None}, ["Positive", "neutral", "negative"], ["negative", "neutral", "Positive"]),
        ({}, ["0", "1", "2"], ["0", "1", "2"]),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, ["a", "b", "c"], ["a", "b", "c"]),
    ],
)  # fmt: skip
def test_labels_of_a_classifier(tmp_path, hf_model, changes, labels, header):
    directory = hf_model(problem=MOODS, outputs=3)
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(config))
    found = predict(directory, tmp_path, labels=labels).splitlines()
    assert found[0].split("\t")[2:-1] == [f"probability_{name}" for name in header]
    if labels is None:
        answers = bert_toolkit.TextClassifier(str(directory)).predict(["the word was god", "woe"])
        assert [line.split("\t")[1] for line in found[1:]] == [answer.label for answer in answers]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["yes", "no"], "asked for are yes, no, but the model was trained for negative, neutral,"),
        (["yes", "no", "perhaps"], "expected those, in any order, or a number for each from 0"),
    ],
)
def test_labels_of_another_model(tmp_path, hf_model, labels, message):
    with pytest.raises(UserError, match=message):
        predict(hf_model(problem=MOODS, outputs=3), tmp_path, labels=labels)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "expected one for each number from 0, each once"),
        ({"id2label": {"0": "a", "1": "a"}}, "expected one for each number from 0, each once"),
        ({"id2label": {"0": "a", "1": "b"}, "problem_type": "ranking"}, "problem_type is 'ranking'; expected one of single"),
        ({"id2label": {"0": "a", "1": "b"}, "problem_type": "regression"}, "2 numbers are predicted"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be(tmp_path, config, message):
    config = {"architectures": ["BertForSequenceClassification"], **config}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        task_file.read([str(tmp_path)])


@pytest.mark.parametrize(
    "problem", [MOODS, Problem(MULTI, ("x", "y", "z")), Problem(REGRESSION)], ids=lambda p: p.kind
)
def test_labels_and_kind_through_conversion(tmp_path, hf_model, problem):
    hf_model("0", problem=problem, outputs=problem.outputs)
    for number, to in enumerate(("google", "hugging_face", "google"), 1):
        names = {"bert_dir": str(tmp_path / f"{number - 1}"), "output_dir": str(tmp_path / f"{number}")}  # fmt: skip
        convert_checkpoint.run(convert_checkpoint.Options(**names, to=to))
        assert task_file.read([str(tmp_path / f"{number}")]) == problem
    answers = [
        bert_toolkit.TextClassifier(str(tmp_path / f"{number}")).predict(["the word"])
        for number in (0, 1)
    ]
    assert answers[0] == answers[1]
