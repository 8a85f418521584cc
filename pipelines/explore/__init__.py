"""`vecbeam explore`: what the vectors of a corpus tell, one file for each of its commands."""
