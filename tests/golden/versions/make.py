"""Makes files with the TensorFlow at hand, which tests/training/test_platform.py reads with any other:

    python tests/golden/versions/make.py

writes, into an archive named after the version of TensorFlow beside this script, a data set, a model
half-way through its training, what the rest of the training shows, and an exported model with the
vectors it gives.
"""

import json
import os
import pathlib
import random
import shutil
import string
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONFIG = {
    "vocab_size": 57,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
TEXTS = ["a bad cab", "dead beef fed a cafe"]
HALF, WHOLE = 6, 12


def training(directory, steps):
    """Returns the options of the run, up to a step.

    The place in the data that a run keeps names files as the flags do: without `directory`, which
    is the current one when the run is made and when it goes on.
    """
    import run_pretraining

    return run_pretraining.Options(
        input_file="data.tfrecord",
        bert_config_file=str(directory / "bert_config.json"),
        vocab_file=str(directory / "vocab.txt"),
        output_dir=str(directory / "model"),
        do_train=True,
        max_seq_length=32,
        max_predictions_per_seq=4,
        train_batch_size=4,
        num_train_steps=steps,
        num_warmup_steps=2,
        learning_rate=1e-3,
        save_checkpoints_steps=HALF,
        log_every_steps=1,
    )


def write_data(directory):
    """Writes a vocabulary of letters, a config, and pretraining data of random words."""
    import create_pretraining_data

    letters = string.ascii_lowercase
    vocabulary = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (directory / "bert_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    words = random.Random(1)
    sentences = [
        " ".join("".join(words.choices("abcdef", k=words.randint(1, 4))) for _ in range(5))
        for _ in range(40)
    ]
    documents = ["\n".join(sentences[start : start + 4]) for start in range(0, 40, 4)]
    (directory / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    create_pretraining_data.run(
        create_pretraining_data.Options(
            input_file=str(directory / "corpus.txt"),
            output_file=str(directory / "data.tfrecord"),
            vocab_file=str(directory / "vocab.txt"),
            max_seq_length=32,
            max_predictions_per_seq=4,
            dupe_factor=2,
        )
    )


def shown(directory):
    """Returns the losses that the training log of a model has, by step."""
    lines = (directory / "model/training_log.jsonl").read_text().splitlines()
    return {str(line["step"]): line["loss"] for line in map(json.loads, lines)}


def main():
    """Writes the archive."""
    import tensorflow as tf

    import run_pretraining
    from bert_toolkit import Encoder
    from bert_toolkit.commands import export_model

    version = ".".join(tf.__version__.split(".")[:2])
    directory = pathlib.Path(tempfile.mkdtemp()) / version
    directory.mkdir()
    os.chdir(directory)
    write_data(directory)
    run_pretraining.run(training(directory, HALF))
    half = directory.with_name("half")
    shutil.copytree(directory / "model", half)
    run_pretraining.run(training(directory, WHOLE))
    losses = shown(directory)
    shutil.rmtree(directory / "model")
    half.rename(directory / "model")
    for pattern in ("events.*", "graph.pbtxt", "*.meta", "model.ckpt-0.*"):
        for path in (directory / "model").glob(pattern):
            path.unlink()
    model = str(directory / "model")
    export_model.run(
        export_model.Options(
            bert_dir=model,
            output_dir=str(directory / "exported"),
            max_seq_length=32,
            pooling="cls",
            with_text=False,
        )
    )
    vectors = Encoder(model, pooling="cls").encode(TEXTS).tolist()
    expected = {"losses": losses, "vectors": vectors}
    (directory / "expected.json").write_text(json.dumps(expected) + "\n")
    with tarfile.open(HERE / f"{version}.tar.xz", "w:xz") as archive:
        archive.add(directory, ".")
    shutil.rmtree(directory.parent)


if __name__ == "__main__":
    main()
