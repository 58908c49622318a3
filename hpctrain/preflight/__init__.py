"""Preflight: find out what is wrong before ranks are started. One check a file, in `checks/`."""
