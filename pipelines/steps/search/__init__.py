"""A search of the served collection: the queries, the rows that are nearest to them, and what becomes of these."""
