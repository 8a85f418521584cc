"""What every run has: session, report, progress, Beam, and the terminal."""
