"""What keeps an audit going: its journal, the batch size that memory allows, several processes, progress."""
