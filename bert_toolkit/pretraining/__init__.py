"""Pretraining data and its network."""
