"""report.html: the page that shows what a run has reached."""
