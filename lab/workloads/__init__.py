"""The programs that the lab traces: each is bounded, and writes down the truth about itself."""
