"""What several packages need: checks of arguments, deletion of unfinished files, and a line that shows progress."""
