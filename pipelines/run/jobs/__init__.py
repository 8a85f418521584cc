"""Beam pipelines of a run: on this machine, or as jobs on other machines that may outlive the command."""
