"""Models from Python: texts in, vectors and labels out."""
