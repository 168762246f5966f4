"""Search under a budget: calibration data, metrics, and drivers that try options of passes and keep the best."""
