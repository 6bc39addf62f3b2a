"""The features of pretraining data."""

from bert_toolkit.io.tfrecord import Field, Schema


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
    along = {"flag": "max_seq_length", "per_position": True}
    predictions = {"flag": "max_predictions_per_seq"}
    sequence = [
        Field("input_ids", max_seq_length, **along),  # type: ignore[arg-type]
        Field("input_mask", max_seq_length, **along),  # type: ignore[arg-type]
        Field("segment_ids", max_seq_length, **along),  # type: ignore[arg-type]
    ]
    masks = [
        Field("masked_lm_positions", max_predictions_per_seq, **predictions),  # type: ignore[arg-type]
        Field("masked_lm_ids", max_predictions_per_seq, **predictions),  # type: ignore[arg-type]
        Field("masked_lm_weights", max_predictions_per_seq, "float32", **predictions),  # type: ignore[arg-type]
    ]
    if not static_masks:
        masks = [Field("word_starts", max_seq_length, **along)] if whole_words else []  # type: ignore[arg-type]
    return Schema((*sequence, *masks, Field("next_sentence_labels", 1)))
