"""What a person reads: the HTML page, Markdown, CSV, and pictures beside a run."""
