"""Measuring runs: sizes against sizes, collectives, settings; and reports of what was found."""
