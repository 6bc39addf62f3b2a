"""Weights and the files beside them, in every layout: read, compared, written."""
