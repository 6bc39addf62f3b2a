#!/usr/bin/env bash
# The whole workflow on the sample data: make pretraining data, pretrain, classify, answer questions,
# find entities, extract features.
# Everything it makes is in demo_output/; takes some four minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
out=demo_output
rm -rf "$out"

echo "== 1. Pretraining data from text, and the same for held-out text"
python create_pretraining_data.py --input_file=sample_data/corpus.txt \
  --output_file=$out/pretrain.tfrecord --vocab_file=sample_data/vocab.txt \
  --max_seq_length=64 --max_predictions_per_seq=10 --dupe_factor=20
python create_pretraining_data.py --input_file=sample_data/corpus_heldout.txt \
  --output_file=$out/heldout.tfrecord --vocab_file=sample_data/vocab.txt \
  --max_seq_length=64 --max_predictions_per_seq=10 --dupe_factor=5

echo "== 2. Pretraining from random weights"
python run_pretraining.py --input_file=$out/pretrain.tfrecord --eval_file=$out/heldout.tfrecord \
  --bert_config_file=sample_data/bert_config.json --output_dir=$out/pretrained \
  --do_train --do_eval --max_seq_length=64 --max_predictions_per_seq=10 \
  --num_train_steps=600 --num_warmup_steps=60 --learning_rate=1e-3

echo "== 3. A classifier of reviews, from the pretrained model"
python run_classifier.py --task_name=sst-2 --data_dir=sample_data/reviews \
  --bert_dir=$out/pretrained --output_dir=$out/reviews --do_train --do_eval --do_predict \
  --max_seq_length=32 --train_batch_size=16 --num_train_epochs=30 --learning_rate=3e-4

echo "== 4. Answers to questions, from the pretrained model"
python run_squad.py --train_file=sample_data/questions/train.json \
  --eval_file=sample_data/questions/dev.json --bert_dir=$out/pretrained --output_dir=$out/questions \
  --max_seq_length=64 --doc_stride=32 --train_batch_size=16 --num_train_epochs=10 \
  --learning_rate=5e-4

echo "== 5. A tagger of people and places"
python run_token_classifier.py --train_file=sample_data/tags/train.conll \
  --eval_file=sample_data/tags/dev.conll --predict_file=sample_data/tags/test.conll \
  --bert_dir=$out/pretrained --output_dir=$out/tags --max_seq_length=32 --train_batch_size=16 \
  --num_train_epochs=15 --learning_rate=3e-4

echo "== 6. Features of some lines"
python extract_features.py --input_file=sample_data/lines.txt --output_file=$out/features.jsonl \
  --bert_dir=$out/pretrained --layers=-1,-2

echo
python sample_data/account.py $out
