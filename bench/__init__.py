"""Traffic and truth: replay files, generate load, and hold what was accepted against what is stored."""
