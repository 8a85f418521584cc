"""The steps of the fused stage as single PTransforms, for users' own pipelines."""
