"""What is learned: images, speech."""
