"""What a search looks for: what a user gives, and the vectors that Milvus gets of it."""
