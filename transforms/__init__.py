"""What happens to the data: pure functions, and the thin PTransforms around them."""
