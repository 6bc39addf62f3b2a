"""Searches for the flags of a fine-tuning that do best on the dev data."""
