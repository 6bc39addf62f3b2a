"""Models from Python: texts in; vectors, labels, words and scores out."""
