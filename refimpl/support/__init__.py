"""What every room needs: errors, files, text, progress."""
