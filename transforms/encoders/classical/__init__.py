"""Families of encoders that are fitted on the corpus: scikit-learn's and gensim's models of its terms."""
