"""What encoders of films share: the frames that are shown at some times, and the sound track."""
