"""Vectors of tokens, words and lines, and the files they are written to."""
