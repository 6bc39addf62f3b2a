#!/usr/bin/env bash
# Pretraining at 128 tokens for 90 % of the steps, then at 512 for the rest, as BERT was.
#
#   examples/two_lengths.sh TEXT OUTPUT_DIR
#
# TEXT has a sentence a line and a blank line between documents, which are best longer than 512
# tokens. Settings in the environment, with what they are unless given:
#   STEPS=3000         training steps of both lengths together
#   BATCH_SIZE=16      sequences in a batch, of either length
#   VOCAB_SIZE=4000    entries of the vocabulary
set -euo pipefail
text=${1:?a file with a sentence a line, a blank line between documents}
out=${2:?a directory to write to}
steps=${STEPS:-3000}
batch_size=${BATCH_SIZE:-16}
vocab_size=${VOCAB_SIZE:-4000}
mkdir -p "$out"

echo "== 1. One document in twenty is held out"
awk -v RS= -v ORS='\n\n' 'NR % 20 != 0' "$text" > "$out/train.txt"
awk -v RS= -v ORS='\n\n' 'NR % 20 == 0' "$text" > "$out/heldout.txt"

echo "== 2. A vocabulary, and a small model with all 512 positions from the start"
bert build-vocab --input_file="$out/train.txt" --heldout_file="$out/heldout.txt" \
  --output_file="$out/vocab.txt" --vocab_size="$vocab_size"
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
  "max_position_embeddings": 512,
  "type_vocab_size": 2,
  "initializer_range": 0.05
}
END

echo "== 3. The data at both lengths"
for length in 128 512; do
  for part in train heldout; do
    bert create-data --input_file="$out/$part.txt" --output_file="$out/$part.$length.tfrecord" \
      --vocab_file="$out/vocab.txt" --dupe_factor=5 \
      --max_seq_length="$length" --max_predictions_per_seq="$((length * 15 / 100))"
  done
done

pretrain() { # LENGTH STEPS_IN_ALL WARMUP_STEPS
  bert pretrain --input_file="$out/train.$1.tfrecord" --eval_file="$out/heldout.$1.tfrecord" \
    --bert_config_file="$out/bert_config.json" --vocab_file="$out/vocab.txt" \
    --output_dir="$out/model" --do_train --do_eval --train_batch_size="$batch_size" \
    --num_train_steps="$2" --num_warmup_steps="$3" --learning_rate=3e-3
}

echo "== 4. 90 % of the steps at 128, and how that model does at 512"
pretrain 128 "$((steps * 9 / 10))" "$((steps / 10))"
bert pretrain --eval_file="$out/heldout.512.tfrecord" --bert_dir="$out/model" \
  --output_dir="$out/model" --do_eval

echo "== 5. The rest at 512: same directory, same optimizer's state, more steps in all"
pretrain 512 "$steps" "$((steps / 10))"
