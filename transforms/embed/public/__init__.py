"""The steps of the fused stage one by one, as PTransforms for pipelines of users."""
