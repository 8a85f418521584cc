"""What tells models that are fitted on the corpus from others, without an import of all that they need."""

from __future__ import annotations


class FittedModel:
    """A model that takes `encoder.fit`; see `transforms.encoders.fitted.term_model`."""
