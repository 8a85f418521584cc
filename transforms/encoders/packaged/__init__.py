"""Weights inside Python packages, as folders that their libraries load: no hub is needed."""
