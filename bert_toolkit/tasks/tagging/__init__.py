"""Tagging: words of sentences with entities, network, CRF, scores."""
