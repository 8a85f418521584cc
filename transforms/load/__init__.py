"""Parts to a collection: a new one part by part, or a served one by the difference."""
