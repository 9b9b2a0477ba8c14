"""What is learned from: files from URLs, an image or a volume, their rows, and the rows as token ids and labels."""
