"""From text to token ids: windows, words, the rules of a tokenizer."""
