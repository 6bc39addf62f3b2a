#!/usr/bin/env bash
# A small Chinese model from text: vocabulary, data with whole words masked, pretraining, use.
#
#   examples/chinese_model.sh TEXTS OUTPUT_DIR [SENTENCE_WITH_A_[MASK]]
#
# TEXTS has a text a line, in UTF-8. Settings in the environment, with what they are unless given:
#   STEPS=3000         training steps
#   SEGMENTER=jieba    finds the words (pip install 'bert-toolkit[zh]'); empty: characters alone
#   VOCAB_SIZE=6000    entries at most; every Chinese character that occurs twice wants one
set -euo pipefail
texts=${1:?a file with a text a line}
out=${2:?a directory to write to}
sentence=${3:-今天天[MASK]很好。}
steps=${STEPS:-3000}
segmenter=${SEGMENTER-jieba}
vocab_size=${VOCAB_SIZE:-6000}
mkdir -p "$out"

echo "== 1. Each text a document of two lines; one in twenty is held out"
python - "$texts" "$out" <<'END'
import pathlib
import re
import sys

texts = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
documents = []
for text in filter(None, map(str.strip, texts)):
    # Where a sentence ends nearest to the middle; without such a place, in the middle.
    ends = [match.end() for match in re.finditer("[。！？；，]", text[:-1])]
    cut = min(ends or [len(text) // 2], key=lambda end: abs(end - len(text) / 2))
    documents.append(f"{text[:cut]}\n{text[cut:]}\n")
directory = pathlib.Path(sys.argv[2])
train = [document for number, document in enumerate(documents) if number % 20]
(directory / "train.txt").write_text("\n".join(train), encoding="utf-8")
(directory / "heldout.txt").write_text("\n".join(documents[::20]), encoding="utf-8")
END

echo "== 2. A vocabulary; no character is too rare, and none is left unused"
bert build-vocab --input_file="$out/train.txt" --heldout_file="$out/heldout.txt" \
  --output_file="$out/vocab.txt" --vocab_size="$vocab_size" --limit_alphabet="$vocab_size" \
  --num_unused=0

echo "== 3. Two layers, 64 wide"
cat > "$out/bert_config.json" <<END
{
  "vocab_size": $(($(wc -l < "$out/vocab.txt"))),
  "hidden_size": 64,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 256,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.1,
  "attention_probs_dropout_prob": 0.1,
  "max_position_embeddings": 128,
  "type_vocab_size": 2,
  "initializer_range": 0.05
}
END

echo "== 4. Pretraining data of both parts"
for part in train heldout; do
  bert create-data --input_file="$out/$part.txt" --output_file="$out/$part.tfrecord" \
    --vocab_file="$out/vocab.txt" --max_seq_length=64 --max_predictions_per_seq=10 \
    --dupe_factor=10 ${segmenter:+--segmenter="$segmenter"}
done

echo "== 5. Pretraining, and evaluation on the held-out texts"
bert pretrain --input_file="$out/train.tfrecord" --eval_file="$out/heldout.tfrecord" \
  --bert_config_file="$out/bert_config.json" --vocab_file="$out/vocab.txt" \
  --output_dir="$out/model" --do_train --do_eval --train_batch_size=64 --eval_batch_size=64 \
  --num_train_steps="$steps" --num_warmup_steps="$((steps / 10))" --learning_rate=3e-3

echo "== 6. What may stand in place of [MASK]"
bert fill-mask --bert_dir="$out/model" --text="$sentence"
