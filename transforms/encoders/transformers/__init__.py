"""Models of images, recordings and texts of the transformers library, each as its architecture is used for vectors."""
