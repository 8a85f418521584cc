"""What encoders of media share: bytes found, decoded, and prepared ahead of the model on all cores."""
