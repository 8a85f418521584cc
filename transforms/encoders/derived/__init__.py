"""Models made of another model, which computes the vectors: of films by a part of them, and of drawn pages."""
