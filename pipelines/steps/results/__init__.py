"""What commands that look at rows give back: figures and a table, as text, JSON, a file or a page."""
