"""What a run may do and what is expected of it: limits, forecasts, listed rejects."""
