"""Cases from public reports about runs: what was passed, and the sentence or the value that comes."""

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT, run_stage

import bert_toolkit
import create_pretraining_data
import extract_features
import run_classifier
import run_pretraining
from bert_toolkit.checkpoints import training_notes
from bert_toolkit.commands import convert_checkpoint, export_model, extend_vocab
from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from bert_toolkit.training import cluster

# --- A vocabulary of the same size, in another order ---

SWAPPED = (1000, 1001)  # two lines, from 0


def reorder(vocab_file, lines=SWAPPED):
    """Exchanges two entries of a vocabulary."""
    entries = vocab_file.read_text(encoding="utf-8").split("\n")
    first, second = lines
    entries[first], entries[second] = entries[second], entries[first]
    vocab_file.write_text("\n".join(entries), encoding="utf-8")
    return vocab_file


@pytest.fixture
def reordered(tmp_path, model_dir):
    """The vocabulary of the golden model in another order, in a file of its own."""
    return reorder(shutil.copy(model_dir / "vocab.txt", tmp_path / "reordered.txt"))


@pytest.fixture
def classify(tmp_path, reviews, model_dir):
    """Runs the classifier on the little reviews; returns the metrics."""

    def run(**flags):
        chosen = {
            "train_file": str(reviews / "train.tsv"),
            "eval_file": str(reviews / "dev.tsv"),
            "bert_dir": str(model_dir),
            "output_dir": str(tmp_path / "out"),
            "max_seq_length": 16,
            "train_batch_size": 12,
            "num_train_epochs": 1.0,
            "do_train": True,
            **flags,
        }
        return run_classifier.run(run_classifier.Options(**chosen))

    return run


def pretrain(tmp_path, data, model_dir, **flags):
    chosen = {
        "output_dir": str(tmp_path / "out"),
        "bert_dir": str(model_dir),
        "input_file": str(data),
        "num_train_steps": 2,
        "num_warmup_steps": 1,
        "train_batch_size": 4,
        **flags,
    }
    return run_pretraining.run(run_pretraining.Options(**chosen))


def uses_of_a_model(model, out):
    """What can be done with the model of a directory: function of the other flags."""
    lines = str(GOLDEN / "corpus.txt")
    own = {"bert_dir": str(model)}
    extraction = {"input_file": lines, "output_file": str(out / "f.npy"), "layers": "-1"} | {
        "pooling": "mean"
    }
    return {
        "features": lambda **flags: extract_features.run(
            extract_features.Options(**own, **extraction, **flags)
        ),
        "export": lambda **flags: export_model.run(
            export_model.Options(**own, output_dir=str(out / "exported"), **flags)
        ),
        "conversion": lambda **flags: convert_checkpoint.run(
            convert_checkpoint.Options(**own, output_dir=str(out / "converted"), **flags)
        ),
        "extension": lambda **flags: extend_vocab.run(
            extend_vocab.Options(**own, input_file=lines, output_dir=str(out / "more"), **flags)
        ),
        "Encoder": lambda: bert_toolkit.Encoder(str(model)),
    }


@pytest.mark.parametrize("use", ["features", "export", "conversion", "extension"])
def test_another_vocabulary_beside_a_published_model_is_named(tmp_path, model_dir, reordered, use):
    with pytest.raises(UserError) as caught:
        uses_of_a_model(model_dir, tmp_path)[use](vocab_file=str(reordered))
    first, second = (
        (model_dir / "vocab.txt").read_text(encoding="utf-8").split("\n")[place]
        for place in SWAPPED
    )
    assert str(caught.value) == (
        f"{reordered}: another vocabulary than that of the model in {model_dir} (token"
        f" {SWAPPED[0]} is {second!r}, there {first!r}); use {model_dir}/vocab.txt"
    )
    assert not (tmp_path / "f.npy").exists()


@pytest.mark.slow
def test_a_vocabulary_that_was_replaced_since_training_is_noticed(tmp_path, classify, model_dir):
    classify()
    out = tmp_path / "out"
    note = json.loads((out / "trained_with.json").read_text())
    assert note["vocab_file"] == str(model_dir / "vocab.txt")
    reorder(out / "vocab.txt")
    message = (
        f"{out}/vocab.txt: other entries, or in another order, than the vocabulary that the model"
        f" in {out} was trained with, as its trained_with.json says; use that vocabulary"
        f" ({model_dir}/vocab.txt when it was trained)"
    )
    actions = {
        "eval": lambda: classify(bert_dir=None, do_train=False, do_eval=True),
        "predict": lambda: classify(
            bert_dir=None, do_train=False, do_predict=True, predict_file=str(GOLDEN / "corpus.txt")
        ),
        "go on": lambda: classify(bert_dir=None, num_train_epochs=2.0),
        "TextClassifier": lambda: bert_toolkit.TextClassifier(str(out)),
        **uses_of_a_model(out, tmp_path),
    }
    for name, action in actions.items():
        with pytest.raises(UserError) as caught:
            action()
        assert str(caught.value) == message, name
    # A model of an earlier version has no note; what lies beside it is believed.
    (out / "trained_with.json").unlink()
    actions["Encoder"]()


@pytest.mark.slow
def test_another_models_vocabulary_is_noticed_without_a_note(tmp_path, classify, reordered):
    classify()
    out = tmp_path / "out"
    (out / "trained_with.json").unlink()
    with pytest.raises(UserError, match=r"another vocabulary than that of the model in .*out \("):
        classify(do_train=False, do_eval=True, vocab_file=str(reordered))


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("[unused0]", "zyxwv", None),
        ("\n", "\r\n", None),
        ("the\n", "the\nmore\n", None),  # after the last one
        ("and", "und", "(token 1 is 'und', there 'and'); use"),
        ("and\nthe", "the\nand", "(token 1 is 'the', there 'and'); use"),
    ],
)
def test_what_counts_as_another_vocabulary(tmp_path, old, new, found):
    text = "[unused0]\nand\nthe\n"
    (tmp_path / "model").mkdir()
    (tmp_path / "model/vocab.txt").write_text(text)
    (tmp_path / "mine.txt").write_bytes(text.replace(old, new).encode())
    mine = training_notes.Vocabulary.of(str(tmp_path / "mine.txt"))
    said = training_notes.mismatch(str(tmp_path / "model/model.ckpt-3"), mine)
    if found is None:
        assert said is None
    else:
        assert said == (
            f"{tmp_path}/mine.txt: another vocabulary than that of the model in {tmp_path}/model"
            f" {found} {tmp_path}/model/vocab.txt"
        )


@pytest.mark.slow
def test_training_from_a_model_of_another_vocabulary_is_a_warning(
    tmp_path, classify, reordered, caplog
):
    classify(vocab_file=str(reordered), do_eval=True)
    assert "another vocabulary than that of the model" in caplog.text
    assert training_notes.read(str(tmp_path / "out"))["vocab_file"] == str(reordered)


@pytest.mark.slow
def test_pretraining_data_of_another_vocabulary(tmp_path, pretraining_data, model_dir, reordered):
    message = "pretrain.tfrecord: another vocabulary than that of the model in .* make the data"
    own = shutil.copytree(model_dir, tmp_path / "own")
    reorder(own / "vocab.txt")
    for action in ("do_train", "do_eval"):
        with pytest.raises(UserError, match=message):
            pretrain(tmp_path, pretraining_data, own, **{action: True})
    with pytest.raises(UserError, match=r"--vocab_file=.*reordered.txt: not the vocabulary that"):
        pretrain(tmp_path, pretraining_data, model_dir, do_train=True, vocab_file=str(reordered))
    # Where the vocabulary that the data was made with is gone, its digest is there.
    note_file = tmp_path / "pretrain.tfrecord.json"
    note = json.loads(note_file.read_text())
    note_file.write_text(tfrecord.note_text({**note, "vocab_file": "gone.txt"}))
    with pytest.raises(UserError, match=message):
        pretrain(tmp_path, pretraining_data, own, do_train=True)
    pretrain(tmp_path, pretraining_data, model_dir, do_train=True)
    noted = training_notes.read(str(tmp_path / "out"))["vocabulary_sha256"]
    assert noted == note["vocabulary_sha256"]


# --- Pretraining data without a note ---


@pytest.fixture
def short_data(tmp_path):
    """Instances of 64 tokens and 10 predictions, with their note."""
    path = tmp_path / "short.tfrecord"
    create_pretraining_data.run(
        create_pretraining_data.Options(
            input_file=str(GOLDEN / "corpus.txt"),
            output_file=str(path),
            vocab_file=str(GOLDEN / "vocab.txt"),
            dupe_factor=1,
            max_seq_length=64,
            max_predictions_per_seq=10,
        )
    )
    return path


@pytest.mark.slow
def test_lengths_that_nobody_passed_are_those_of_the_data(tmp_path, short_data, model_dir):
    (tmp_path / "short.tfrecord.json").unlink()
    pretrain(tmp_path, short_data, model_dir, do_train=True)
    assert tf.train.latest_checkpoint(str(tmp_path / "out")).endswith("-2")
    with pytest.raises(UserError) as caught:
        pretrain(tmp_path, short_data, model_dir, do_train=True, max_seq_length=128)
    assert str(caught.value) == (
        f"--max_seq_length=128, but input_ids in {short_data} has 64 values. Pass"
        " --max_seq_length=64 or make the data again."
    )


@pytest.mark.parametrize("noted", [True, False])
def test_files_of_two_lengths_are_named_and_no_flag(
    tmp_path, short_data, pretraining_data, model_dir, noted
):
    if not noted:
        for path in (short_data, pretraining_data):
            path.with_name(f"{path.name}.json").unlink()
    found = (
        f"{short_data} was made with 64" if noted else f"input_ids in {short_data} has 64 values"
    )
    message = (
        f"{pretraining_data} was made with --max_seq_length=128, but {found}; leave one of them"
        " out, or make it again with the flags of the other"
    )
    both = f"{pretraining_data},{short_data}"
    for flags in (
        {"do_train": True, "input_file": both},
        {"do_train": True, "do_eval": True, "eval_file": str(short_data)},
    ):
        with pytest.raises(UserError) as caught:
            pretrain(tmp_path, pretraining_data, model_dir, **flags)
        assert str(caught.value) == message


def test_data_longer_than_the_model_is_named_by_its_file(tmp_path, pretraining_data, model_dir):
    config_file = model_dir / "bert_config.json"
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**config, "max_position_embeddings": 64}))
    with pytest.raises(UserError) as caught:
        pretrain(tmp_path, pretraining_data, model_dir, do_train=True)
    assert str(caught.value) == (
        f"{pretraining_data}: sequences of 128 tokens, but {config_file} says"
        " max_position_embeddings 64; make the data again with --max_seq_length=64 or less"
    )


# --- Other data, or other flags, in a directory where training is finished ---


@pytest.mark.slow
def test_what_differs_from_a_finished_training_is_told(tmp_path, classify, reviews, caplog):
    classify()
    out = tmp_path / "out"
    done = (
        f"nothing to train: {out}/model.ckpt-3 is at step 3, and 3 were asked for{{}}; raise"
        " --num_train_epochs to train on from there, or pass --overwrite to begin anew (another"
        " --output_dir keeps both)"
    )
    caplog.clear()
    classify()
    assert caplog.messages == [done.format("")]
    other = reviews / "other.tsv"
    other.write_text((reviews / "train.tsv").read_text().replace("peace", "war"))
    trained = f"; it was trained on {reviews}/train.tsv (now {other})"
    for flags, differences in (
        ({}, trained),
        ({"learning_rate": 1e-3}, f"{trained}, with --learning_rate=5e-05 (now 0.001)"),
    ):
        caplog.clear()
        classify(train_file=str(other), **flags)
        assert caplog.messages == [done.format(differences)]
    caplog.clear()
    shutil.copy(other, reviews / "train.tsv")
    classify(num_train_epochs=2.0)
    going_on = (
        f"going on from {out}/model.ckpt-3: step 3 of 6; it was trained on {reviews}/train.tsv"
        " (which is another file now)"
    )
    assert going_on in caplog.messages
    caplog.clear()
    classify(num_train_epochs=2.0)  # the note is of the data that it was trained on last
    assert caplog.messages == [
        done.replace("3 is at step 3, and 3", "6 is at step 6, and 6").format("")
    ]


@pytest.mark.slow
def test_other_pretraining_data_in_a_finished_directory(
    tmp_path, pretraining_data, short_data, model_dir, caplog
):
    pretrain(tmp_path, pretraining_data, model_dir, do_train=True)
    caplog.clear()
    pretrain(tmp_path, short_data, model_dir, do_train=True, train_batch_size=8)
    [said] = [message for message in caplog.messages if message.startswith("nothing to train")]
    assert said == (
        f"nothing to train: {tmp_path}/out/model.ckpt-2 is at step 2, and 2 were asked for; it was"
        f" trained on {pretraining_data} (now {short_data}), with --train_batch_size=4 (now 8);"
        " raise --num_train_steps to train on from there, or pass --overwrite to begin anew"
        " (another --output_dir keeps both)"
    )


# --- TF_CONFIG ---

TWO = '"cluster": {"worker": ["a:1", "b:1"]}'
FORM = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@pytest.mark.parametrize(
    ("config", "hosts", "chief"),
    [
        ("", 0, True),
        (" \n", 0, True),
        ("{}", 0, True),
        ('{"cluster": {}}', 0, True),
        ('{"cluster": {"worker": []}, "task": {}}', 0, True),
        ('{"environment": "cloud"}', 0, True),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', 1, True),
        ('{"cluster": {"worker": ["a:1"]}}', 1, True),
        ('{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}', 1, True),
        (f'{{{TWO}, "task": {{"type": "worker", "index": "0"}}}}', 2, True),
        (f'{{{TWO}, "task": {{"type": "worker", "index": 1}}}}', 2, False),
        (f'{{{TWO}, "task": {{"type": "worker"}}}}', 2, True),
    ],
)
def test_clusters(monkeypatch, config, hosts, chief):
    monkeypatch.setenv("TF_CONFIG", config)
    assert (cluster.size(), cluster.is_chief()) == (hosts, chief)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("{", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ("host1:2222", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        ('["a:1"]', "not a JSON object"),
        ('{"cluster": "a:1"}', "cluster is not a JSON object"),
        (f'{{{TWO}, "task": 0}}', "task has no type, but cluster has only worker"),
        (f'{{{TWO}, "task": 1}}', "task is not a JSON object"),
        ('{"cluster": {"worker": "a:1"}}', 'worker is "a:1", not a list of addresses'),
        ('{"cluster": {"worker": ["a", "b"]}}', 'worker has "a", not an address such as host1:2222'),
        ('{"cluster": {"worker": [1, 2]}}', "worker has 1, not an address such as host1:2222"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}}', "cluster has a:1 twice"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}}', "cluster has more than one chief"),
        ('{"cluster": {"ps": ["a:1"]}}', "cluster has the role 'ps', here all hosts are workers, or a chief"),
        (f"{{{TWO}}}", "task has no type, but cluster has only worker"),
        (f'{{{TWO}, "task": {{"type": "chief", "index": 0}}}}', 'task has the type "chief", but cluster has only worker'),
        (f'{{{TWO}, "task": {{"type": "worker", "index": 2}}}}', "task has the index 2, but cluster has 2 of worker, counted from 0"),
        (f'{{{TWO}, "task": {{"type": "worker", "index": -1}}}}', "task has the index -1, but cluster has 2 of worker, counted from 0"),
        (f'{{{TWO}, "task": {{"type": "worker", "index": "b"}}}}', 'task has the index "b", not a whole number'),
        (f'{{{TWO}, "task": {{"type": "evaluator", "index": 0}}}}', "task is an evaluator, but the first host evaluates; start none"),
    ],
)  # fmt: skip
def test_unfit_clusters(monkeypatch, config, found):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError) as caught:
        cluster.size()
    expected = f"TF_CONFIG: {found}; expected {FORM}, or no TF_CONFIG where one host trains alone"
    assert str(caught.value) == expected


@pytest.mark.parametrize("stage", ["run_pretraining", "run_classifier"])
def test_an_unfit_cluster_is_told_before_anything_is_read(tmp_path, stage):
    flags = ["--do_train", "--bert_dir=nowhere", "--input_file=x", f"--output_dir={tmp_path}/out"]
    if stage == "run_classifier":
        flags[2] = "--train_file=x"
    result = run_stage(stage, *flags, env={**os.environ, "TF_CONFIG": "{"})
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: TF_CONFIG: not JSON (")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_worker_alone_is_a_run_on_one_host(tmp_path, pretraining_data, model_dir):
    config = '{"cluster": {"worker": ["localhost:2222"]}, "task": {"type": "worker", "index": 0}}'
    flags = {
        "input_file": pretraining_data,
        "eval_file": pretraining_data,
        "bert_dir": model_dir,
        "output_dir": tmp_path / "out",
        "num_train_steps": 2,
        "train_batch_size": 4,
        "max_eval_steps": 1,
    }
    switches = ("--do_train", "--do_eval", "--overwrite")
    environment = {**os.environ, "TF_CONFIG": config}
    result = run_stage("run_pretraining", flags, *switches, env=environment)
    assert result.returncode == 0, result.stderr
    assert "running on the CPU" in result.stderr
    assert (tmp_path / "out/eval_results.txt").exists()


# --- Windows of long texts: one flag, by its new name and by its old one ---

STAGES_WITH_WINDOWS = {
    "run_classifier": {"train_file": "x.tsv", "output_dir": "out", "bert_dir": "nowhere"},
    "extract_features": {"input_file": "x.txt", "output_file": "out.npz", "bert_dir": "nowhere"},
}


@pytest.mark.parametrize("name", ["doc_stride", "window_stride"])
@pytest.mark.parametrize("stage", STAGES_WITH_WINDOWS)
def test_windows_with_gaps_are_refused_everywhere(tmp_path, stage, name):
    flags = {**STAGES_WITH_WINDOWS[stage], "max_seq_length": 16, name: 17}
    result = run_stage(stage, flags, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        1,
        "error: --doc_stride=17 would leave out tokens between windows of --max_seq_length=16;"
        " pass at most that\n",
    )


@pytest.mark.parametrize("module", [run_classifier, extract_features])
def test_the_old_name_of_doc_stride(module):
    flags = {"max_seq_length": 16, **STAGES_WITH_WINDOWS[module.__name__]}
    assert module.Options(**flags).doc_stride == 0
    for name in ("doc_stride", "window_stride"):
        assert module.Options(**flags, **{name: 8}).doc_stride == 8
        assert module.Options(**flags, **{name: 0}).doc_stride == 0
        assert module.Options(**flags, **{name: 16}).doc_stride == 16
    again = dataclasses.replace(module.Options(**flags, window_stride=8), max_seq_length=8)
    assert again.doc_stride == 8
    with pytest.raises(
        UserError, match="--window_stride=4, but --doc_stride=8: both name the same option"
    ):
        module.Options(**flags, doc_stride=8, window_stride=4)


# --- The published script's documented example ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "vocab_file"),
    [
        (GOLDEN / "corpus.txt", GOLDEN / "vocab.txt"),
        (ROOT / "sample_data/corpus.txt", ROOT / "sample_data/vocab.txt"),
    ],
)
def test_instances_of_the_documented_flags_are_the_published_ones(tmp_path, text, vocab_file):
    expected, found = tmp_path / "expected.tfrecord", tmp_path / "found.tfrecord"
    script = ROOT / "benchmarks/plain_pretraining_data.py"
    dupe_factor = "5"
    subprocess.run([sys.executable, script, text, expected, vocab_file, dupe_factor], check=True)
    flags = {
        "input_file": text,
        "output_file": found,
        "vocab_file": vocab_file,
        "do_lower_case": True,
        "max_seq_length": 128,
        "max_predictions_per_seq": 20,
        "masked_lm_prob": 0.15,
        "random_seed": 12345,
        "dupe_factor": dupe_factor,
    }
    result = run_stage("create_pretraining_data", flags)
    assert result.returncode == 0, result.stderr
    published, ours = (
        [tf.train.Example.FromString(record) for record in tfrecord.read_records(str(path))]
        for path in (expected, found)
    )
    assert len(ours) == len(published) > 20
    for number, (one, other) in enumerate(zip(published, ours)):
        assert one == other, number


# --- Could the reader do what the sentence says, in this very command? ---


def test_a_python_caller_is_told_of_arguments(tmp_path, model_dir):
    config_file = model_dir / "bert_config.json"
    trained = bert_toolkit.TextClassifier
    cases = [
        (bert_toolkit.Encoder, {"bert_dir": "nowhere"}, "bert_dir=nowhere: no such directory"),
        (trained, {"model_dir": "nowhere"}, "nowhere: no task.json; expected a trained classifier"),
        (
            bert_toolkit.Encoder,
            {"max_seq_length": 512},
            f"max_seq_length=512, but {config_file} says max_position_embeddings 128; pass"
            " max_seq_length=128 or less",
        ),
        (
            bert_toolkit.Encoder,
            {"layers": [-1, 2]},
            "layers=-1,2: no layer 2; the model has 2, numbered 0 to 1 or -2 to -1",
        ),
        (
            bert_toolkit.Encoder,
            {"combine": "avg"},
            "combine='avg': expected separate, concat, mean or sum",
        ),
        (
            bert_toolkit.Encoder,
            {"pooling": "none"},
            "pooling='none': expected cls, mean, max or mean_max",
        ),
        (
            bert_toolkit.Encoder,
            {"init_checkpoint": "nowhere"},
            "init_checkpoint=nowhere: no checkpoint there; expected a prefix such as"
            " bert_model.ckpt, its .index file, a directory or a model.safetensors",
        ),
    ]
    for function, arguments, message in cases:
        name = "model_dir" if function is trained else "bert_dir"
        with pytest.raises(UserError) as caught:
            function(**{name: str(model_dir), **arguments})
        assert str(caught.value) == message
    (model_dir / "task.json").write_text('{"problem_type": "single_label", "labels": ["0", "1"]}')
    tf.train.update_checkpoint_state(str(model_dir), str(model_dir / "bert_model.ckpt"))
    config_file.rename(tmp_path / "config")
    with pytest.raises(UserError) as caught:
        trained(str(model_dir))
    expected = f"model_dir={model_dir}: no bert_config.json or config.json in it"
    assert str(caught.value) == expected


COMMANDS = (
    "build_vocab convert_checkpoint create_pretraining_data export_model extend_vocab"
    " extract_features baselines run_classifier run_pretraining"
).split()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_its_own_flags_only(command):
    """The sentences in a command's own file; those of the package are for several commands."""
    listed = set(re.findall(r"^  --(?:\[no\])?(\w+)", run_stage(command, "--help").stdout, re.M))
    [source] = [
        path
        for folder in (ROOT, ROOT / "bert_toolkit" / "commands")
        if (path := folder / f"{command}.py").exists()
    ]
    tree = ast.parse(source.read_text(encoding="utf-8"))
    texts = [
        node.value
        for call in ast.walk(tree)
        if isinstance(call, (ast.Call, ast.Yield))
        for node in ast.walk(call)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    named = {name for name in re.findall(r"--(\w+)", " ".join(texts)) if not name.endswith("_")}
    named = {name if name in listed else name.removeprefix("no") for name in named}
    assert named - listed - FLAGS_OF_OTHERS == set()


# Named with the program that has them.
FLAGS_OF_OTHERS = {"direct_num_workers", "direct_running_mode", "logdir", "model_config_file"}


@pytest.mark.parametrize(
    ("stage", "flags", "message"),
    [
        (
            "create_pretraining_data",
            {"input_file": "x", "vocab_file": "v", "output_file": "taken/a/b.tfrecord"},
            "taken/a: cannot make this directory: Not a directory",
        ),
        (
            "create_pretraining_data",
            {"input_file": "x", "vocab_file": "v", "output_file": "taken/b.tfrecord"},
            "taken: a file; expected a directory to write to",
        ),
        (
            "export_model",
            {"bert_dir": "m", "output_dir": "o", "pooling": "none", "normalize": "true"},
            "--normalize goes with --pooling=cls, mean, max or mean_max",
        ),
    ],
)
def test_sentences(tmp_path, stage, flags, message):
    for name in ("x", "taken"):
        (tmp_path / name).write_text("a sentence\n\nanother\n")
    shutil.copy(GOLDEN / "vocab.txt", tmp_path / "v")
    result = run_stage(stage, flags, cwd=tmp_path)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, f"error: {message}")


@pytest.mark.slow
def test_baselines_name_the_program_that_has_the_flags(tmp_path):
    rows = [*["good text\t1"] * 40, *["bad text\t0"] * 3]
    (tmp_path / "train.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    flags = {"train_file": tmp_path / "train.tsv", "eval_split": 0.4}
    result = run_stage("baselines", flags)
    assert result.returncode == 0, result.stderr
    assert "--class_weights=balanced or --oversample of bert classify may help" in result.stderr
