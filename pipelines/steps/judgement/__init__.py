"""What a run may do and what it will come to: limits, forecasts, rejects by name."""
