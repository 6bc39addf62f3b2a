#!/usr/bin/env bash
# Further pretraining on a task's own texts, then classification: with it and without.
#
#   examples/further_pretraining.sh TRAIN_TSV DEV_TSV BERT_DIR OUTPUT_DIR [MORE_TEXTS]
#
# The tables have a header and the text in their first column, as SST-2 has; MORE_TEXTS has a text a
# line, without labels. Settings in the environment, with what they are unless given:
#   STEPS=1000     steps of pretraining, of 32 texts each
#   EPOCHS=3       epochs of classification
#   ROWS=all       labelled rows to classify by; the texts of the others are pretrained on all the same
#   SEEDS=3        models of each way, 2 or more
#   MAX_LENGTH=64  tokens of a text
set -euo pipefail
train=${1:?a table of labelled texts}
dev=${2:?a table of labelled texts to judge by}
bert_dir=${3:?a pretrained model}
out=${4:?a directory to write to}
more=${5:-/dev/null}
steps=${STEPS:-1000}
rows=${ROWS:-all}
length=${MAX_LENGTH:-64}
mkdir -p "$out"

echo "== 1. The texts, each a document"
{ tail -n +2 "$train" | cut -f1; cat "$more"; } | sed G > "$out/texts.txt"

echo "== 2. Pretraining data: a text is a sequence, masked anew in each epoch"
bert create-data --input_file="$out/texts.txt" --output_file="$out/texts.tfrecord" \
  --vocab_file="$bert_dir/vocab.txt" --max_seq_length="$length" --max_predictions_per_seq=10 \
  --use_next_sentence=false --static_masks=false --short_seq_prob=0

echo "== 3. Pretraining goes on from the model"
bert pretrain --input_file="$out/texts.tfrecord" --bert_dir="$bert_dir" \
  --output_dir="$out/pretrained" --do_train --train_batch_size=32 --learning_rate=1e-4 \
  --num_train_steps="$steps" --num_warmup_steps="$((steps / 10))"

echo "== 4. Classification by the model as it was, and as it is now"
for start in "$bert_dir" "$out/pretrained"; do
  name=from_$([ "$start" = "$bert_dir" ] && echo before || echo after)
  bert classify --train_file="$train" --eval_file="$dev" --bert_dir="$start" \
    --output_dir="$out/$name" --max_seq_length="$length" --train_batch_size=32 \
    --eval_batch_size=32 --learning_rate=5e-5 --num_train_epochs="${EPOCHS:-3}" \
    --num_runs="${SEEDS:-3}" $([ "$rows" = all ] || echo "--max_train_examples=$rows")
done

echo "== 5. Accuracy of the runs"
grep -H eval_accuracy "$out"/from_*/run_*/eval_results.txt
