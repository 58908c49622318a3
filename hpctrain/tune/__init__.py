"""Tuning by measurement: which settings are fastest here, found by short runs of the trainer."""
