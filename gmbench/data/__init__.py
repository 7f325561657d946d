"""Where data comes from: the local folder, checked downloads, and readers of the standard formats."""
