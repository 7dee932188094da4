"""What several packages share.

Checks of inputs, labels and weights; arrays that are read when needed; stores on disk; workers;
devices and randomness.
"""
