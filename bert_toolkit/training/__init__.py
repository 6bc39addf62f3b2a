"""Estimator, the training step and what surrounds it, for every task."""
