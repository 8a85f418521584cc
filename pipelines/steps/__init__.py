"""Steps that commands share, by what they are about: the corpus, the collection, the judgement, the proposal."""
