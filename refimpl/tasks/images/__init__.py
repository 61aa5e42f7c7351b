"""Images: idx files, toy digits."""
