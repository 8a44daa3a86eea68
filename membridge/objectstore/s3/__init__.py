"""An S3 bucket as an object store: a client, and the child process that does the transfers.

The child is the only process that loads botocore. Never import `store` in the daemon.
"""
