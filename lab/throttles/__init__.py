"""The throttles of the lab, one module each: every one is a mechanism found in real systems."""
