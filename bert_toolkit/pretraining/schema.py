"""The features of pretraining data."""

from bert_toolkit.io.tfrecord import Field, Schema, along_sequence, sequence_fields


def pretraining_schema(
    max_seq_length: int,
    max_predictions_per_seq: int,
    static_masks: bool = True,
    whole_words: bool = False,
) -> Schema:
    """The features of a pretraining instance, as published.

    Without static masks there is nothing about masked tokens: `dynamic_masks` adds it while
    training. For masking whole words it needs to know where they start.
    """
    predictions = {"flag": "max_predictions_per_seq"}
    masks = [
        Field("masked_lm_positions", max_predictions_per_seq, **predictions),  # type: ignore[arg-type]
        Field("masked_lm_ids", max_predictions_per_seq, **predictions),  # type: ignore[arg-type]
        Field("masked_lm_weights", max_predictions_per_seq, "float32", **predictions),  # type: ignore[arg-type]
    ]
    if not static_masks:
        masks = [along_sequence("word_starts", max_seq_length)] if whole_words else []
    return Schema((*sequence_fields(max_seq_length), *masks, Field("next_sentence_labels", 1)))
