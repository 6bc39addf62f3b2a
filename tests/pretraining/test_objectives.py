"""Objectives beside the published one: what the instances are, and that models are trained on them."""

import collections
import random

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN

import create_pretraining_data as stage
import run_pretraining
import tokenization
from bert_toolkit.errors import UserError
from bert_toolkit.pretraining import dynamic_masks, masking

VOCAB, CORPUS = str(GOLDEN / "vocab.txt"), str(GOLDEN / "corpus.txt")
CLS, SEP, MASK = 2, 3, 4


@pytest.fixture(scope="module")
def tokenizer():
    return tokenization.FullTokenizer(VOCAB)


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    return masking.Vocabulary(tokenizer)


def documents(count=200, sentences=20):
    """Documents of random tokens; every token tells its document and its place in it."""
    chance = random.Random(0)
    found = []
    for number in range(count):
        lengths = [chance.randrange(1, 40) for _ in range(sentences)]
        starts = np.cumsum([0, *lengths])
        base = 200 + number * 1000
        found.append(
            [
                list(range(base + start, base + start + length))
                for start, length in zip(starts, lengths)
            ]
        )
    return found


def instances(vocabulary, texts=None, repetitions=1, **changes):
    settings = masking.Settings(
        **{
            "max_seq_length": 128,
            "max_predictions_per_seq": 20,
            "masked_lm_prob": 0.15,
            "short_seq_prob": 0.0,
            "dupe_factor": repetitions,
            "do_whole_word_mask": False,
            **changes,
        }
    )
    vocabulary.replacements = [300_000]  # the tokens of `documents` need more room than "H"
    return list(
        masking.create_instances(
            texts or documents(), vocabulary, settings, [random.Random(1)] * repetitions
        )
    )


def original(instance):
    ids = list(instance.input_ids)
    for position, token in zip(instance.masked_positions, instance.masked_ids):
        ids[position] = token
    return ids


def test_without_next_sentences_a_sequence_is_one_full_segment(vocabulary):
    made = instances(vocabulary, use_next_sentence=False)
    texts = collections.defaultdict(list)
    for instance in made:
        ids = original(instance)
        assert instance.first_segment == len(ids) <= 128
        assert (ids[0], ids[-1], ids.count(SEP)) == (CLS, SEP, 1)
        assert not instance.is_random_next
        assert ids[1:-1] == list(range(ids[1], ids[1] + len(ids) - 2))  # nothing left out inside
        texts[(ids[1] - 200) // 1000] += ids[1:-1]
    # Every token of every document once, and only the last sequence of a document is not full.
    for number, document in enumerate(documents()):
        assert sorted(texts[number]) == [token for sentence in document for token in sentence]
    assert sum(len(instance.input_ids) < 128 for instance in made) <= 200


def test_packed_documents_leave_no_padding(vocabulary):
    short = documents(count=300, sentences=1)
    tokens = sum(len(sentence) for document in short for sentence in document)
    made = instances(vocabulary, short, use_next_sentence=False, pack_documents=True)
    assert sum(len(instance.input_ids) < 128 for instance in made) <= 1
    assert len(made) == -(-(tokens + 299) // 126)
    unpacked = instances(vocabulary, documents(300, 1), use_next_sentence=False)
    assert len(unpacked) == 300


def test_sentence_order(vocabulary):
    made = instances(vocabulary, sentence_order=True)
    swapped = 0
    for instance in made:
        ids = original(instance)
        first, second = ids[1 : instance.first_segment - 1], ids[instance.first_segment : -1]
        assert first
        assert second
        assert (first[0] - 200) // 1000 == (second[0] - 200) // 1000
        assert (first[0] > second[0]) == instance.is_random_next
        swapped += instance.is_random_next
    assert swapped / len(made) == pytest.approx(0.5, abs=0.05)


def test_sentence_order_of_single_sentences(vocabulary):
    made = instances(vocabulary, [[[1000, 1001, 1002]], [[2000]]], 20, sentence_order=True)
    assert len(made) == 20  # one token cannot be divided
    assert {len(instance.input_ids) for instance in made} == {6}


def test_spans_of_words(vocabulary):
    made = instances(vocabulary, max_ngram=3)
    runs = collections.Counter()
    for instance in made:
        assert len(instance.masked_positions) <= 20
        positions = set(instance.masked_positions)
        for position in positions:
            if position - 1 not in positions:
                length = 1
                while position + length in positions:
                    length += 1
                runs[length] += 1
    share = sum(len(instance.masked_positions) for instance in made) / sum(
        min(20, round(len(instance.input_ids) * 0.15)) for instance in made
    )
    assert 0.98 < share <= 1
    # One, two and three words with weights 1, 1/2, 1/3, less where spans meet.
    assert runs[2] / runs[1] == pytest.approx(0.5, abs=0.12)
    assert runs[3] / runs[1] == pytest.approx(0.33, abs=0.12)


def options(tmp_path, **flags):
    return stage.Options(
        **{
            "input_file": CORPUS,
            "output_file": str(tmp_path / "data"),
            "vocab_file": VOCAB,
            "dupe_factor": 2,
            **flags,
        }
    )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (20, 10)),
        ({"max_seq_length": 512}, (20, 10)),
        ({"masked_lm_prob": 0.4}, (52, 10)),
        ({"masked_lm_prob": 0.4, "max_predictions_per_seq": 30}, (30, 10)),
        ({"static_masks": False}, (20, 1)),
    ],
)
def test_what_is_not_given_is_derived(tmp_path, flags, expected):
    settings = options(tmp_path, **{"dupe_factor": None, **flags}).settings()
    assert (settings.max_predictions_per_seq, settings.dupe_factor) == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sentence_order": True, "use_next_sentence": False}, "--sentence_order needs pairs"),
        ({"pack_documents": True}, "--pack_documents is for single segments"),
        ({"max_ngram": 3, "static_masks": False}, "--max_ngram is not for"),
        ({"word_separator": ""}, "--word_separator: expected a text"),
        ({"num_shards": 2, "output_file": "a,b"}, "one name, please"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        options(tmp_path, **flags)


@pytest.mark.parametrize("separator", [" ", "/"])
def test_words_of_segmented_chinese_are_masked_together(tmp_path, tokenizer, separator):
    words = ["\u4e2d\u56fd", "\u4eba\u6c11", "\u4e0a", "\u5927\u4e2d\u5b66", "word-god"]
    vocab = tmp_path / "vocab.txt"
    characters = sorted(set("".join(words)))
    vocab.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word", "god", *characters])
    )
    chance = random.Random(2)
    lines = [separator.join(chance.choice(words) for _ in range(9)) for _ in range(200)]
    (tmp_path / "in.txt").write_text(
        "\n\n".join("\n".join(lines[i : i + 4]) for i in range(0, 200, 4))
    )
    path = tmp_path / "data"
    stage.run(
        options(
            tmp_path,
            input_file=str(tmp_path / "in.txt"),
            vocab_file=str(vocab),
            word_separator=separator,
            masked_lm_prob=0.3,
        )
    )
    own = tokenization.FullTokenizer(str(vocab))
    word_ids = {tuple(own.encode(word)) for word in words}
    groups = collections.Counter()
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        positions = features["masked_lm_positions"].int64_list.value
        ids = features["masked_lm_ids"].int64_list.value
        run = []
        for position, token in zip([*positions, 10**6], [*ids, 0]):
            if run and position != run[-1][0] + 1:
                groups[tuple(token for _, token in run)] += 1
                run = []
            if token:
                run.append((position, token))
    # Neighboring words may both be masked; alone, only whole words are.
    lone = {group for group in groups if len(group) <= 2 and groups[group] > 20}
    assert lone <= {ids for ids in word_ids if len(ids) <= 2} | {
        one + two for one in word_ids for two in word_ids if len(one + two) == 2
    }
    assert tuple(own.encode("\u4e2d\u56fd")) in lone
    assert tuple(own.encode("\u4e2d")) not in lone


# --- Masks chosen while training ---


def batch(rows=500, length=128, seed=0):
    chance = np.random.RandomState(seed)
    ids = np.zeros([rows, length], np.int32)
    mask = np.zeros_like(ids)
    starts = np.zeros_like(ids)
    for row in range(rows):
        size = chance.randint(5, length + 1)
        ids[row, :size] = chance.randint(1000, 4000, size)
        ids[row, [0, size // 2, size - 1]] = CLS, SEP, SEP
        mask[row, :size] = 1
        starts[row, :size] = chance.rand(size) < 0.6
        starts[row, [0, size // 2, size - 1]] = 0
        starts[row, 1] = starts[row, size // 2 + 1 :][:1] = 1
    return {"input_ids": ids, "input_mask": mask, "word_starts": starts}


def masks(whole_words=False, probability=0.15, limit=20):
    return dynamic_masks.DynamicMasks(
        limit,
        probability,
        cls=CLS,
        sep=SEP,
        mask=MASK,
        vocab_size=4000,
        whole_words=whole_words,
        seed=7,
    )


def apply(function, features, number=0):
    tensors = {name: tf.constant(value) for name, value in features.items()}
    return {
        name: value.numpy()
        for name, value in function(tf.constant(number, tf.int64), tensors).items()
    }


def test_dynamic_masks_follow_the_law_of_static_ones():
    counts = collections.Counter()
    for number in range(16):
        before = batch(seed=number)
        after = apply(masks(), before, number)
        for row in range(len(before["input_ids"])):
            used = after["masked_lm_weights"][row] > 0
            positions = after["masked_lm_positions"][row][used]
            ids, size = before["input_ids"][row], before["input_mask"][row].sum()
            assert len(positions) == min(20, max(1, round(size * 0.15)))
            assert list(positions) == sorted(set(positions))
            assert not set(positions) & {0, size // 2, size - 1}
            assert max(positions) < size
            assert (after["masked_lm_ids"][row][used] == ids[positions]).all()
            untouched = np.setdiff1d(np.arange(128), positions)
            assert (after["input_ids"][row][untouched] == ids[untouched]).all()
            now = after["input_ids"][row][positions]
            counts["mask"] += (now == MASK).sum()
            counts["same"] += (now == ids[positions]).sum()
            counts["all"] += len(now)
    assert counts["all"] > 60_000
    assert counts["mask"] / counts["all"] == pytest.approx(0.8, abs=0.01)
    assert counts["same"] / counts["all"] == pytest.approx(0.1, abs=0.01)


def test_dynamic_masks_are_new_in_every_batch_and_the_same_for_a_seed():
    features = batch(50)
    first, again, other = (apply(masks(), features, number) for number in (0, 0, 1))
    assert (first["input_ids"] == again["input_ids"]).all()
    assert (first["masked_lm_positions"] != other["masked_lm_positions"]).any()


def test_dynamic_masks_take_whole_words():
    before = batch(400)
    after = apply(masks(whole_words=True, probability=0.3, limit=30), before)
    complete = wanted = 0
    for row in range(400):
        size = before["input_mask"][row].sum()
        words = np.cumsum(before["word_starts"][row])
        special = {0, size // 2, size - 1}
        positions = set(after["masked_lm_positions"][row][after["masked_lm_weights"][row] > 0])
        for position in positions:
            mates = {
                mate
                for mate in range(size)
                if words[mate] == words[position] and mate not in special
            }
            assert mates <= positions
        complete += len(positions)
        wanted += min(30, max(1, round(size * 0.3)))
    assert 0.9 < complete / wanted <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        {"static_masks": False},
        {"static_masks": False, "do_whole_word_mask": True},
        {"use_next_sentence": False, "masked_lm_prob": 0.4},
        {"sentence_order": True, "max_ngram": 3},
    ],
    ids=str,
)
def test_a_model_is_trained_on_it(tmp_path, model_dir, flags):
    stage.run(options(tmp_path, max_seq_length=64, **flags))
    metrics = run_pretraining.run(
        run_pretraining.Options(
            bert_dir=str(model_dir),
            output_dir=str(tmp_path / "out"),
            input_file=str(tmp_path / "data"),
            eval_file=str(tmp_path / "data"),
            do_train=True,
            do_eval=True,
            learning_rate=2e-3,
            num_train_steps=12,
            num_warmup_steps=1,
        )
    )
    assert 0 < metrics["masked_lm_loss"] < 8.6
    assert ("next_sentence_loss" in metrics) == flags.get("use_next_sentence", True)


def test_data_without_pairs_is_not_for_next_sentence_prediction(tmp_path, model_dir):
    stage.run(options(tmp_path, use_next_sentence=False))
    with pytest.raises(UserError, match="its sequences are single segments"):
        run_pretraining.run(
            run_pretraining.Options(
                bert_dir=str(model_dir),
                output_dir=str(tmp_path / "out"),
                input_file=str(tmp_path / "data"),
                do_train=True,
                use_next_sentence=True,
            )
        )
