"""Run folders as runs: what was trained, what was evaluated, on which images, and what was published."""
