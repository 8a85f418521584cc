"""How good the answers are: queries with known answers, ranked by the checkpoint's vectors or by what is served."""
