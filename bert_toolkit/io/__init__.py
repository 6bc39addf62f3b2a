"""Files of all kinds: text, tables, TFRecord; progress and worker processes."""
