"""Late interaction models of pictures: a vector for each patch of a picture."""
