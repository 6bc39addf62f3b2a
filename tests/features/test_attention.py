"""Attention weights in files, beside the formula in numpy; the vocabulary in the projector."""

import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, run_stage

import extract_features
import modeling
from bert_toolkit.errors import UserError

TEXTS = ["the word was with god and the earth was void", "the earth ||| and the word", ""]


def softmax_attention(states, kernels, heads, mask):
    """[S, H] -> [N, S, S], in double precision, a head and a token at a time."""
    query, key = (states @ kernel + bias for kernel, bias in kernels)
    size = query.shape[-1] // heads
    weights = np.zeros((heads, len(states), len(states)))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for row in range(len(states)):
            scores = key[:, part] @ query[row, part] / np.sqrt(size)
            scores[mask == 0] = -np.inf
            weights[head, row] = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return weights


@pytest.mark.parametrize("remove_padding", [False, True])
def test_weights_are_those_of_the_formula(remove_padding):
    batch = np.load(GOLDEN / "model_outputs.npz")
    mask = batch["input_mask"]
    assert (mask == 0).any()
    config = modeling.BertConfig.from_json_file(str(GOLDEN / "model/bert_config.json"))
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.constant(batch[name]) for name in ("input_ids", "input_mask", "segment_ids")]
        model = modeling.BertModel(config, False, *inputs, remove_padding=remove_padding)
        names = [variable.op.name for variable in tf.trainable_variables()]
        tf.train.init_from_checkpoint(
            str(GOLDEN / "model/bert_model.ckpt"), {name: name for name in names}
        )
        session.run(tf.global_variables_initializer())
        states, weights = session.run(
            [
                [model.get_embedding_output(), *model.get_all_encoder_layers()],
                model.get_attention_weights(),
            ]
        )
        values = dict(zip(names, session.run(tf.trainable_variables())))
    for layer, found in enumerate(weights):
        scope = f"bert/encoder/layer_{layer}/attention/self"
        kernels = [
            [values[f"{scope}/{name}/{part}"].astype(float) for part in ("kernel", "bias")]
            for name in ("query", "key")
        ]
        for row in range(len(mask)):
            real = mask[row] == 1
            expected = softmax_attention(
                states[layer][row].astype(float), kernels, config.num_attention_heads, mask[row]
            )
            assert np.abs(found[row] - expected)[:, real].max() < 1e-6
            assert (found[row][..., ~real] == 0).all()


@pytest.fixture
def options(tmp_path, model_dir):
    (tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    return {
        "input_file": str(tmp_path / "lines.txt"),
        "output_file": str(tmp_path / "out.npz"),
        "bert_dir": str(model_dir),
        "attention": True,
    }


def test_a_line_has_its_tokens_and_its_weights(tmp_path, options):
    extract_features.run(extract_features.Options(**options, layers="1,0"))
    found = np.load(tmp_path / "out.npz", allow_pickle=False)
    assert found["layers"].tolist() == [1, 0]
    assert found["tokens_1"].tolist() == "[CLS] the earth [SEP] and the word [SEP]".split()
    assert len(found.files) == 1 + 2 * len(TEXTS)
    for number in range(len(TEXTS)):
        weights = found[f"attention_{number}"]
        length = len(found[f"tokens_{number}"])
        assert weights.shape == (2, 4, length, length)
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    alone = {
        **options,
        "output_file": str(tmp_path / "one.npz"),
        "batch_size": 1,
        "batch_tokens": 0,
    }
    extract_features.run(extract_features.Options(**alone, layers="1", dtype="float16"))
    one = np.load(tmp_path / "one.npz", allow_pickle=False)["attention_1"]
    np.testing.assert_allclose(one, found["attention_1"][:1], atol=1e-3)
    assert one.dtype == np.float16


def test_attention_in_shards_goes_on(tmp_path, options):
    options |= {"layers": "0", "lines_per_shard": 2}
    extract_features.run(extract_features.Options(**options))
    listing = json.loads((tmp_path / "out.shards.json").read_text())
    listing["shards"].pop()  # as if interrupted before the second
    (tmp_path / "out.shards.json").write_text(json.dumps(listing))
    (tmp_path / "out-00001.npz").unlink()
    assert extract_features.run(extract_features.Options(**options)) == 3
    assert np.load(tmp_path / "out-00001.npz").files == ["layers", "tokens_2", "attention_2"]
    with pytest.raises(UserError, match="begun with attention=True, now it is None"):
        extract_features.run(extract_features.Options(**{**options, "attention": False}))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"pooling": "mean"}, "--attention is of the tokens of whole lines; leave out --pooling"),
        ({"align": "words"}, "leave out --align"),
        ({"doc_stride": 8}, "leave out --doc_stride"),
        ({"layers": "embeddings,-1"}, "embeddings,-1: expected layers, which embeddings are not"),
        ({"output_file": "a.jsonl"}, "--attention: --output_file=a.jsonl: expected an .npz file"),
        ({"attention": False, "projector": "vocabulary"}, "--projector_dir is required"),
        ({"projector": "vocabulary", "projector_dir": "x"}, "reads no text; leave out --input_file"),
        ({"input_file": ""}, "--input_file is required"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit(options, flags, message):
    with pytest.raises(UserError, match=message):
        extract_features.Options(**{**options, **flags})


def test_the_vocabulary_is_points_of_the_projector(tmp_path, model_dir):
    folder = tmp_path / "points"
    result = run_stage(
        "extract_features",
        {"projector": "vocabulary", "projector_dir": folder, "bert_dir": model_dir},
    )
    assert result.returncode == 0, result.stderr
    assert f"tensorboard --logdir {folder} shows 4,000 points" in result.stderr
    table = tf.train.load_variable(
        str(model_dir / "bert_model.ckpt"), "bert/embeddings/word_embeddings"
    )
    vectors = np.loadtxt(folder / "vectors.tsv", delimiter="\t")
    np.testing.assert_allclose(vectors, table, rtol=1e-5, atol=1e-9)
    header, *rows = (folder / "metadata.tsv").read_text().splitlines()
    assert header == "token\tid\tkind"
    tokens = (model_dir / "vocab.txt").read_text().splitlines()
    assert [row.split("\t")[:2] for row in rows] == [[t, str(n)] for n, t in enumerate(tokens)]
    kinds = dict(row.split("\t")[::2] for row in rows)
    assert [kinds[token] for token in ("[MASK]", "the", "##s")] == ["special", "word", "piece"]
    assert 'metadata_path: "metadata.tsv"' in (folder / "projector_config.pbtxt").read_text()
