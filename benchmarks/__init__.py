"""What is timed against what; see README.md beside this file."""
