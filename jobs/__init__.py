"""Entry points for `ray job submit`: `python -m jobs.NAME key=value ...`, one file a job."""
