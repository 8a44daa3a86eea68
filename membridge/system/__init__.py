"""What the operating system gives: files, and what it says when it cannot."""
