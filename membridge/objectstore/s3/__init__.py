"""An S3 as an object store: its client, and the child process that does the transfers."""
